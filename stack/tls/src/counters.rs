//! What a core counts of TLS.

use barewire_service::counters;
use rustls::{CipherSuite, Error, InvalidMessage, ProtocolVersion};

counters! {
    /// What a core counts of TLS.
    pub struct TlsCounters {
        /// Handshakes completed.
        handshakes: Counter,
        /// Handshakes completed with TLS 1.3.
        handshakes_tls13: Counter,
        /// Handshakes completed with TLS 1.2.
        handshakes_tls12: Counter,
        /// Handshakes that resumed an earlier session by its ticket.
        handshakes_resumed: Counter,
        /// Handshakes completed with AES-128-GCM.
        handshakes_aes128_gcm: Counter,
        /// Handshakes completed with AES-256-GCM.
        handshakes_aes256_gcm: Counter,
        /// Handshakes completed with ChaCha20-Poly1305.
        handshakes_chacha20_poly1305: Counter,
        /// Handshakes completed that chose HTTP/2 by ALPN.
        handshakes_alpn_h2: Counter,
        /// Handshakes that have begun and not ended.
        handshaking: Gauge,
        /// Handshakes that may be in progress at once.
        handshaking_max: Limit,
        /// Connections refused because too many handshakes were in progress.
        refused_handshaking: Loss,
        /// Connections refused because too many handshakes had begun within a second.
        refused_rate: Loss,
        /// Handshakes failed: the bytes were not TLS.
        failed_not_tls: Loss,
        /// Handshakes failed: a message was malformed, or came at the wrong time.
        failed_malformed: Loss,
        /// Handshakes failed: no version, suite, group or signature scheme in common.
        failed_incompatible: Loss,
        /// Handshakes failed: no protocol in common (ALPN).
        failed_alpn: Loss,
        /// Handshakes failed: no client certificate, or none of a trusted authority.
        failed_client_certificate: Loss,
        /// Handshakes failed: the client sent an alert, most often because it does not trust the certificate.
        failed_by_client: Loss,
        /// Handshakes failed: the client ended the connection.
        failed_ended: Loss,
        /// Handshakes failed: they took too long.
        failed_timeout: Loss,
        /// Handshakes failed for any other reason.
        failed_other: Loss,
        /// Records of application data received.
        records_in: Counter,
        /// Records of application data sent.
        records_out: Counter,
        /// Keys replaced, of either direction (KeyUpdate).
        key_updates: Counter,
        /// Connections ended by an alert, because a record was not as RFC 8446 or RFC 5246 wants it.
        records_refused: Loss,
        /// Connections whose peer ended its stream without close_notify.
        truncated: Loss,
    }
}

impl TlsCounters {
    /// A handshake was completed.
    pub(crate) fn completed(
        &self,
        version: ProtocolVersion,
        suite: CipherSuite,
        is_resumed: bool,
        alpn: Option<&[u8]>,
    ) {
        self.handshakes.increment();
        match version {
            ProtocolVersion::TLSv1_3 => self.handshakes_tls13.increment(),
            _ => self.handshakes_tls12.increment(),
        }
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
                self.handshakes_aes128_gcm.increment();
            }
            CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => {
                self.handshakes_aes256_gcm.increment();
            }
            _ => self.handshakes_chacha20_poly1305.increment(),
        }
        if is_resumed {
            self.handshakes_resumed.increment();
        }
        if alpn == Some(b"h2") {
            self.handshakes_alpn_h2.increment();
        }
    }

    /// A handshake failed.
    pub(crate) fn failed(&self, error: &Error) {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => &self.failed_not_tls,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => &self.failed_malformed,
            Error::PeerIncompatible(_) => &self.failed_incompatible,
            Error::NoApplicationProtocol => &self.failed_alpn,
            Error::NoCertificatesPresented
            | Error::InvalidCertificate(_)
            | Error::InvalidCertRevocationList(_) => &self.failed_client_certificate,
            Error::AlertReceived(_) => &self.failed_by_client,
            _ => &self.failed_other,
        }
        .increment();
    }
}
