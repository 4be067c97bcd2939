//! TLS to etcd, with the node's own certificate if it has one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsConnector;

use super::error::EtcdError;

/// Where Debian, and most others by a link, have the authorities that everybody trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// `[cluster.tls]`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// Authorities that sign etcd's certificates, PEM; the system's if not given.
    pub ca: Option<PathBuf>,
    /// This node's certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The name in etcd's certificates, if it is not the host's.
    pub server_name: Option<String>,
}

/// A connector that knows whom to trust and who we are. The files are read at each call: they are renewed
/// while the daemon runs.
pub(super) fn connector(files: &TlsFiles) -> Result<TlsConnector, EtcdError> {
    let ca = files.ca.clone().unwrap_or_else(|| SYSTEM_CA.into());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&ca)? {
        roots.add(certificate).map_err(|e| wrong(&ca, &e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&ca, &e))?
        .with_root_certificates(roots);
    let config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let own = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
            config.with_client_auth_cert(certificates(cert)?, own).map_err(|e| wrong(cert, &e))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, &e))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| wrong(path, &e))?;
    if found.is_empty() {
        return Err(wrong(path, &"there is no certificate in it"));
    }
    Ok(found)
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> EtcdError {
    EtcdError::Certificate { path: path.to_owned(), why: why.to_string() }
}
