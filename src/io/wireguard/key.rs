//! A node's private key.

use std::fmt;
use std::io;

use boringtun::x25519;

use crate::base::base64;
use crate::base::key::PublicKey;

/// A private key. Its memory is wiped when it goes, and it is never shown.
#[derive(Clone)]
pub struct Secret(x25519::StaticSecret);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A new one.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        crate::io::random::fill(&mut bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Reads one as `wg genkey` writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = base64::decode(text.trim())?.try_into().ok()?;
        Some(Self(bytes.into()))
    }

    /// Writes it the same way.
    pub fn text(&self) -> String {
        base64::encode(self.0.as_bytes())
    }

    /// The key that others know it by.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.public_point().to_bytes())
    }

    pub(super) fn scalar(&self) -> &x25519::StaticSecret {
        &self.0
    }

    pub(super) fn public_point(&self) -> x25519::PublicKey {
        (&self.0).into()
    }
}
