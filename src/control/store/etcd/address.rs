//! Where a member of etcd is: `https://etcd1.example:2379`.

use std::fmt;
use std::str::FromStr;

/// A member's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Whether it is spoken to by TLS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What etcd's clients connect to if no port is named.
const PORT: u16 = 2379;

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no endpoint of etcd: write http://HOST:2379 or https://HOST:2379")
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong()),
            None => (false, text),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) || port == 0 {
            return Err(wrong());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Endpoint {
    /// Host and port, as the Host header has them.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_both_families_and_a_port_that_is_left_out() {
        for (text, written) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("https://etcd1.example", "https://etcd1.example:2379"),
            ("http://[fd00::1]:4001/", "http://[fd00::1]:4001"),
            ("https://[fd00::1]", "https://[fd00::1]:2379"),
            ("etcd1:2379", "http://etcd1:2379"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), written);
        }
        for text in [
            "",
            "http://",
            "ftp://a:1",
            "http://a:0",
            "http://a:x",
            "http://a/b",
            "http://u@h:1",
            "http://[::1]x",
        ] {
            assert!(text.parse::<Endpoint>().unwrap_err().contains("http://HOST:2379"), "{text}");
        }
    }
}
