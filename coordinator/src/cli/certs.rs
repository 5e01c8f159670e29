//! `evenkeel certs`: an authority of one's own, and a certificate for each kind of program.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use evenkeel_common::runtime::{COORDINATOR_NAME, now_ms};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::args::CertsArgs;
use super::exit::{Exit, Failure};

/// Clocks may differ by this much.
const SKEW: Duration = Duration::hours(1);

pub fn certs(args: &CertsArgs) -> Result<Exit, Failure> {
    let made = make(args).map_err(|error| Failure::usage(format!("no certificates were made: {error}")))?;
    let place = |name: &str| args.out.join(name);
    if let Some(there) = made.iter().map(|file| place(&file.name)).find(|path| path.exists()) {
        return Err(Failure::usage(format!(
            "{} exists and is not overwritten; choose another --out, or delete what is there if nobody uses it",
            there.display()
        )));
    }
    let fail = |path: &Path, error| Failure::usage(format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(&args.out).map_err(|error| fail(&args.out, error))?;
    for file in &made {
        let path = place(&file.name);
        write(&path, file).map_err(|error| fail(&path, error))?;
    }
    tell(&args.out, &hosts(&args.host), args.days);
    Ok(Exit::Fine)
}

/// A file in PEM.
struct Made {
    name: String,
    pem: String,
    secret: bool,
}

/// What a certificate is good for.
struct Leaf {
    name: &'static str,
    serves: bool,
    /// Workers take orders from its owner.
    leads: bool,
}

const LEAVES: [Leaf; 3] = [
    Leaf { name: "coordinator", serves: true, leads: true },
    Leaf { name: "worker", serves: true, leads: false },
    Leaf { name: "client", serves: false, leads: false },
];

/// The names that servers are reached at: this machine's, and those that were given.
fn hosts(given: &[String]) -> Vec<String> {
    let own = hostname::get().ok().and_then(|name| name.into_string().ok());
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for host in own.into_iter().chain(given.iter().cloned()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn make(args: &CertsArgs) -> Result<Vec<Made>, rcgen::Error> {
    let now = OffsetDateTime::from_unix_timestamp(now_ms() / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let params = |names: Vec<String>, common: &str| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = now - SKEW;
        params.not_after = now + Duration::days(i64::from(args.days));
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    };
    let mut made = Vec::new();
    let mut keep = |name: &str, pem: String, key: &KeyPair| {
        made.push(Made { name: format!("{name}.pem"), pem, secret: false });
        made.push(Made { name: format!("{name}.key"), pem: key.serialize_pem(), secret: true });
    };

    let mut ca = params(Vec::new(), "Evenkeel CA")?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    keep("ca", ca.self_signed(&key)?.pem(), &key);
    let issuer = Issuer::new(ca, key);

    for leaf in LEAVES {
        let mut names = if leaf.serves { hosts(&args.host) } else { Vec::new() };
        names.extend(leaf.leads.then(|| COORDINATOR_NAME.to_owned()));
        let mut wanted = params(names, &format!("evenkeel {}", leaf.name))?;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A coordinator dials workers, and a worker its coordinator: only a client never serves.
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if leaf.serves {
            wanted.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate()?;
        keep(leaf.name, wanted.signed_by(&key, &issuer)?.pem(), &key);
    }
    Ok(made)
}

fn write(path: &PathBuf, file: &Made) -> std::io::Result<()> {
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    out.write_all(file.pem.as_bytes())?;
    out.sync_all()
}

fn tell(out: &Path, hosts: &[String], days: u32) {
    let flags = |name: &str| {
        let file = |name: String| out.join(name).display().to_string();
        format!(
            "--tls-ca {} --tls-cert {} --tls-key {}",
            file("ca.pem".to_owned()),
            file(format!("{name}.pem")),
            file(format!("{name}.key"))
        )
    };
    println!("certificates in {}, good for {days} days and the names {}", out.display(), hosts.join(", "));
    println!();
    println!("evenkeel coordinator … {}", flags("coordinator"));
    println!("evenkeel-worker --coordinator https://HOST:7070 … {}", flags("worker"));
    println!("evenkeel list --endpoint https://HOST:7070 {}", flags("client"));
    println!();
    println!(
        "Each machine needs ca.pem and its own pair, no other. Keep ca.key off them: who has it can make more."
    );
}
