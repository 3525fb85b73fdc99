//! `barewire certificate`: a certificate for a first try of HTTPS.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use crate::console::say;

/// The certificate is valid from so long ago: clocks differ.
const SINCE: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
pub(super) struct CertificateArgs {
    /// Sign it with its own key: clients trust it only if they are told to, as by `curl --cacert`
    #[arg(long, required = true)]
    self_signed: bool,

    /// Name or address of the server; repeat it for more
    #[arg(long, value_name = "NAME", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])]
    name: Vec<String>,

    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,

    /// Where to write certificate.pem and key.pem
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
}

/// Writes a certificate and its key.
///
/// # Errors
///
/// If a name is none, or a file cannot be written or is there already.
pub(super) fn run(args: &CertificateArgs) -> anyhow::Result<ExitCode> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let mut params = CertificateParams::new(args.name.clone()).with_context(|| {
        format!(
            "--name has to be a host's name or an address: {}",
            args.name.join(", ")
        )
    })?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.context("the clock stands before 1970")?;
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(SINCE);
    params.not_after = epoch + now + Duration::from_secs(u64::from(args.days) * 86_400);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let subject = "barewire, for a try";
    params.distinguished_name.push(DnType::CommonName, subject);
    let certificate = params
        .self_signed(&key)
        .context("cannot make a certificate")?;

    let (certificate_path, key_path) = (
        args.directory.join("certificate.pem"),
        args.directory.join("key.pem"),
    );
    write(&key_path, 0o600, &key.serialize_pem())?;
    write(&certificate_path, 0o644, &certificate.pem())?;
    say(&format!(
        "wrote {certificate} and {key}, valid for {days} days; try:\n  \
         barewire serve --tls-certificate {certificate} --tls-key {key}\n  \
         curl --cacert {certificate} https://localhost:8443/health",
        certificate = certificate_path.display(),
        key = key_path.display(),
        days = args.days,
    ));
    Ok(ExitCode::SUCCESS)
}

/// Never over another file: a server may be using it.
fn write(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| {
            format!(
                "cannot write {}: remove it, or choose another --directory",
                path.display()
            )
        })
}
