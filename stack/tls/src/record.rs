//! The record layer: AEAD on bytes in buffers of the caller.
//!
//! ```text
//!   TLS 1.3      │ 23 │ 3 3 │ length │ ciphertext of: content, its type, padding │ tag │   RFC 8446, section 5.2
//!   TLS 1.2 GCM  │ type │ 3 3 │ length │ nonce, 8 B │ ciphertext of: content │ tag │       RFC 5288
//!   TLS 1.2 ChaCha20-Poly1305: without the nonce                                           RFC 7905
//! ```
//!
//! [`Opener`] decrypts from the received bytes into a buffer of the caller's. [`Sealer`] encrypts in place; the caller
//! leaves room for the header in front of the content. Neither allocates. A key protects no more records than
//! [`Sealer::is_spent`] allows. AWS-LC wipes keys when they are dropped; this module wipes IVs.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};
use zeroize::Zeroize;

/// Length of a record's header in bytes: type, version and length.
pub const HEADER_BYTES: usize = 5;
/// Longest content of a record, in bytes (RFC 8446, section 5.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;
/// Longest record of TLS 1.3 without its header, in bytes (RFC 8446, section 5.2); that of our suites of TLS 1.2 is
/// shorter.
pub const BODY_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;
/// Longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
/// Most bytes that a record has beside its content when we seal it.
pub const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// Of the nonce that a record of TLS 1.2 with AES-GCM carries.
const NONCE_BYTES: usize = 8;
const TAG_BYTES: usize = 16;

/// The type of a record's content (RFC 8446, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `change_cipher_spec`
    ChangeCipherSpec = 20,
    /// `alert`
    Alert = 21,
    /// `handshake`
    Handshake = 22,
    /// `application_data`
    ApplicationData = 23,
}

impl ContentType {
    fn of(byte: u8) -> Option<ContentType> {
        Some(match byte {
            20 => ContentType::ChangeCipherSpec,
            21 => ContentType::Alert,
            22 => ContentType::Handshake,
            23 => ContentType::ApplicationData,
            _ => return None,
        })
    }
}

/// The alerts that this crate sends on connections with keys (RFC 8446, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// `close_notify`: the sender sends no more.
    CloseNotify = 0,
    /// `unexpected_message`: the state of the connection does not allow the message.
    UnexpectedMessage = 10,
    /// `bad_record_mac`: a record fails authentication.
    BadRecordMac = 20,
    /// `record_overflow`: a record is too long.
    RecordOverflow = 22,
    /// `decode_error`: a message is malformed.
    DecodeError = 50,
    /// `internal_error`: this side has failed.
    InternalError = 80,
    /// `no_renegotiation`: the connection shakes hands once (TLS 1.2).
    NoRenegotiation = 100,
}

/// Length in bytes of the record at the front of `bytes`, header included; `None` while its header is incomplete.
///
/// # Errors
///
/// [`Alert::RecordOverflow`] if its body is longer than [`BODY_BYTES_MAX`].
#[inline]
pub fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        body if body > BODY_BYTES_MAX => Err(Alert::RecordOverflow),
        body => Ok(Some(HEADER_BYTES + body)),
    }
}

/// The layout of a protected record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// TLS 1.3.
    Tls13,
    /// TLS 1.2 with a nonce in each record (RFC 5288).
    Tls12Nonce,
    /// TLS 1.2 without one (RFC 7905).
    Tls12,
}

/// A key, its IV, and how many records it has protected.
struct Protection {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    form: Form,
}

impl Protection {
    fn new(version: ProtocolVersion, secrets: (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (sequence, secrets) = secrets;
        let (algorithm, key, iv, has_nonce) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, true),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, true),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&CHACHA20_POLY1305, key, iv, false)
            }
            _ => return None,
        };
        let form = match version {
            ProtocolVersion::TLSv1_3 => Form::Tls13,
            ProtocolVersion::TLSv1_2 if has_nonce => Form::Tls12Nonce,
            ProtocolVersion::TLSv1_2 => Form::Tls12,
            _ => return None,
        };
        Some(Protection {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?),
            iv: iv.as_ref().try_into().ok()?,
            sequence,
            form,
        })
    }

    /// The IV, its last eight bytes XORed with the sequence number (RFC 8446, section 5.3).
    #[inline]
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// The additional data of a record of TLS 1.2 (RFC 5246, section 6.2.3.3).
    #[inline]
    fn additional_data(&self, kind: u8, content_bytes: usize) -> Aad<[u8; 13]> {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&self.sequence.to_be_bytes());
        data[8..11].copy_from_slice(&[kind, 3, 3]);
        data[11..].copy_from_slice(&(content_bytes as u16).to_be_bytes());
        Aad::from(data)
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

/// Opens the records of the peer.
pub struct Opener(Protection);

impl Opener {
    /// Opens with `secrets`; `None` if this layer does not have their suite.
    pub fn new(
        version: ProtocolVersion,
        secrets: (u64, ConnectionTrafficSecrets),
    ) -> Option<Opener> {
        Protection::new(version, secrets).map(Opener)
    }

    /// Opens `record`, which is one whole record, into the front of `space`, which has room for [`BODY_BYTES_MAX`].
    /// Returns the type and the length of the content in bytes. What is in `space` behind the content is undefined.
    ///
    /// # Errors
    ///
    /// The alert to send: [`Alert::BadRecordMac`] if authentication fails, [`Alert::UnexpectedMessage`] if the type is
    /// not allowed, [`Alert::RecordOverflow`] if the content is too long.
    #[inline]
    pub fn open(&mut self, record: &[u8], space: &mut [u8]) -> Result<(ContentType, usize), Alert> {
        let (header, body) = record
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Alert::DecodeError)?;
        let Protection {
            ref key,
            iv,
            sequence,
            form,
        } = self.0;
        let (body, tag) = body
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(Alert::BadRecordMac)?;
        let nonce = self.0.nonce();
        let (content, is_open) = match form {
            Form::Tls13 => {
                // RFC 8446, section 5.2: the outer type of a protected record.
                if header[0] != ContentType::ApplicationData as u8 {
                    return Err(Alert::UnexpectedMessage);
                }
                let space = &mut space[..body.len()];
                let nonce = Nonce::assume_unique_for_key(nonce);
                let opened = key.open_separate_gather(nonce, Aad::from(*header), body, tag, space);
                (body.len(), opened)
            }
            Form::Tls12Nonce => {
                let (explicit, body) = body
                    .split_first_chunk::<NONCE_BYTES>()
                    .ok_or(Alert::BadRecordMac)?;
                let mut nonce = iv;
                nonce[4..].copy_from_slice(explicit);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let data = self.0.additional_data(header[0], body.len());
                let space = &mut space[..body.len()];
                (
                    body.len(),
                    key.open_separate_gather(nonce, data, body, tag, space),
                )
            }
            Form::Tls12 => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let data = self.0.additional_data(header[0], body.len());
                let space = &mut space[..body.len()];
                (
                    body.len(),
                    key.open_separate_gather(nonce, data, body, tag, space),
                )
            }
        };
        is_open.map_err(|_| Alert::BadRecordMac)?;
        self.0.sequence = sequence + 1;
        let (kind, content) = match form {
            Form::Tls13 => {
                // Padding is zeros behind the type (RFC 8446, section 5.4).
                let end = space[..content].iter().rposition(|&byte| byte != 0);
                let end = end.ok_or(Alert::UnexpectedMessage)?;
                (space[end], end)
            }
            Form::Tls12 | Form::Tls12Nonce => (header[0], content),
        };
        if content > CONTENT_BYTES_MAX {
            return Err(Alert::RecordOverflow);
        }
        let kind = ContentType::of(kind).ok_or(Alert::UnexpectedMessage)?;
        Ok((kind, content))
    }
}

/// Seals the records of this side.
pub struct Sealer {
    protection: Protection,
    /// Records that the key may be used for.
    records_max: u64,
}

impl Sealer {
    /// Seals at most `records_max` records with `secrets`; `None` if this layer does not have their suite.
    pub fn new(
        version: ProtocolVersion,
        secrets: (u64, ConnectionTrafficSecrets),
        records_max: u64,
    ) -> Option<Sealer> {
        Some(Sealer {
            protection: Protection::new(version, secrets)?,
            records_max,
        })
    }

    /// Whether the key has to be replaced before the next record of content: its AEAD keeps confidentiality for a
    /// limited number of records (RFC 8446, section 5.5). The key is still good for an alert or a KeyUpdate then.
    #[inline]
    pub fn is_spent(&self) -> bool {
        const SIGNALS: u64 = 4;
        self.protection.sequence + SIGNALS >= self.records_max
    }

    /// Bytes in front of the content.
    #[inline]
    pub fn front_bytes(&self) -> usize {
        match self.protection.form {
            Form::Tls13 | Form::Tls12 => HEADER_BYTES,
            Form::Tls12Nonce => HEADER_BYTES + NONCE_BYTES,
        }
    }

    /// Bytes behind the content.
    #[inline]
    pub fn back_bytes(&self) -> usize {
        match self.protection.form {
            Form::Tls13 => 1 + TAG_BYTES,
            Form::Tls12 | Form::Tls12Nonce => TAG_BYTES,
        }
    }

    /// Makes a record of the `content_bytes` that are in `space`, [`Sealer::front_bytes`] from its start and with
    /// [`Sealer::back_bytes`] of room behind them. Returns the record's length.
    ///
    /// # Errors
    ///
    /// [`Alert::InternalError`] if `space` is too short, or if the AEAD fails, which it does not with content of at
    /// most [`CONTENT_BYTES_MAX`].
    #[inline]
    pub fn seal(
        &mut self,
        space: &mut [u8],
        kind: ContentType,
        content_bytes: usize,
    ) -> Result<usize, Alert> {
        let (front, back) = (self.front_bytes(), self.back_bytes());
        let end = front + content_bytes + back;
        let space = space.get_mut(..end).ok_or(Alert::InternalError)?;
        let nonce = self.protection.nonce();
        let (outer, sealed_from) = match self.protection.form {
            Form::Tls13 => {
                space[front + content_bytes] = kind as u8;
                (ContentType::ApplicationData, front)
            }
            Form::Tls12 => (kind, front),
            Form::Tls12Nonce => {
                space[HEADER_BYTES..front].copy_from_slice(&nonce[4..]);
                (kind, front)
            }
        };
        let [high, low] = ((end - HEADER_BYTES) as u16).to_be_bytes();
        let header = [outer as u8, 3, 3, high, low];
        space[..HEADER_BYTES].copy_from_slice(&header);
        let (content, tag_space) =
            space[sealed_from..].split_at_mut(content_bytes + back - TAG_BYTES);
        let key = &self.protection.key;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = match self.protection.form {
            Form::Tls13 => key.seal_in_place_separate_tag(nonce, Aad::from(header), content),
            Form::Tls12 | Form::Tls12Nonce => {
                let data = self.protection.additional_data(outer as u8, content_bytes);
                key.seal_in_place_separate_tag(nonce, data, content)
            }
        };
        tag_space.copy_from_slice(tag.map_err(|_| Alert::InternalError)?.as_ref());
        self.protection.sequence += 1;
        Ok(end)
    }
}
