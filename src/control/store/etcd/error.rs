//! Why etcd cannot be used just now.

use std::io;
use std::path::PathBuf;

use super::address::Endpoint;

/// A failure, as a person reads it.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No connection.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// Whom to.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// No TLS session.
    #[error(
        "{endpoint} and this node do not agree about TLS: {source}; check `ca`, `cert` and `key` of `[cluster.tls]`"
    )]
    Tls {
        /// Whom with.
        endpoint: Endpoint,
        /// What the library said.
        source: io::Error,
    },
    /// A file of certificates or keys.
    #[error("cannot use {path} for TLS: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It does not answer, or no longer.
    #[error("{0} does not answer")]
    Silent(Endpoint),
    /// The connection broke off.
    #[error("{endpoint} broke the connection off: {why}")]
    Broken {
        /// Who.
        endpoint: Endpoint,
        /// What the library said.
        why: String,
    },
    /// It answered that it will not.
    #[error("{endpoint} refused: {message}")]
    Refused {
        /// Who.
        endpoint: Endpoint,
        /// gRPC's code.
        code: u32,
        /// Its words.
        message: String,
    },
    /// An answer that is none of etcd's.
    #[error("{endpoint} is not etcd 3.4 or later, or speaks another language: {why}")]
    Foreign {
        /// Who.
        endpoint: Endpoint,
        /// What was found.
        why: String,
    },
    /// An answer beyond all bounds.
    #[error("{0} sent more than {max} bytes in one answer", max = crate::base::limits::CLUSTER_ANSWER_BYTES_MAX)]
    TooLong(Endpoint),
    /// The past that was asked about is gone.
    #[error("the store has forgotten that far back")]
    Compacted,
    /// The kernel gave no runtime.
    #[error("cannot wait for etcd: {0}")]
    System(#[from] io::Error),
}

/// gRPC's codes.
pub(super) const NOT_FOUND: u32 = 5;
pub(super) const OUT_OF_RANGE: u32 = 11;
pub(super) const UNAUTHENTICATED: u32 = 16;
