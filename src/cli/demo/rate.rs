//! How fast one TCP connection between two containers is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::check::Family;
use super::probe::{accept, connect, inside};
use super::world::Host;
use super::{now, since};
use crate::cli::human::bytes;

/// How long is sent, in each family.
const LENGTH: Duration = Duration::from_secs(2);
/// What one system call moves.
const CHUNK: usize = 256 * 1024;

/// A rate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Rate {
    pub(super) family: Family,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) ok: bool,
    pub(super) bytes: u64,
    pub(super) micros: u64,
    /// What went wrong.
    pub(super) error: Option<String>,
}

impl Rate {
    /// Measures.
    pub(super) fn measure(family: Family, from: &Host, to: &Host) -> Self {
        let (name, other) = (from.name, to.name);
        let rate = |bytes, micros, error: Option<String>| {
            let ok = error.is_none();
            Self { family, from: name, to: other, ok, bytes, micros, error }
        };
        match transfer(family, from, to) {
            Ok((sent, received, time)) => {
                let lost = || format!("{sent} bytes were sent, {received} arrived");
                let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                rate(received, micros, (sent != received || received == 0).then(lost))
            }
            Err(error) => rate(0, 0, Some(error.to_string())),
        }
    }

    /// Thousands of millions of bits a second.
    #[allow(clippy::cast_precision_loss, reason = "for showing only")]
    pub(super) fn gbits(&self) -> f64 {
        if self.micros == 0 { 0.0 } else { self.bytes as f64 * 8.0 / (self.micros as f64 * 1e3) }
    }

    /// For people.
    #[allow(clippy::cast_precision_loss, reason = "for showing only")]
    pub(super) fn in_words(&self) -> String {
        let seconds = self.micros as f64 / 1e6;
        format!("{:.2} Gbit/s: {} in {seconds:.2} s", self.gbits(), bytes(self.bytes))
    }
}

/// Bytes sent, bytes received, and how long it took until the last one was there.
fn transfer(family: Family, from: &Host, to: &Host) -> io::Result<(u64, u64, Duration)> {
    let server = to.server(family);
    let listener = inside(&to.ns, || TcpListener::bind(server))?;
    let (client, _) = connect(&from.ns, server)?;
    let (served, _) = accept(&listener)?;
    let start = now();
    thread::scope(|scope| {
        let sender = thread::Builder::new().spawn_scoped(scope, || send(client, start + LENGTH))?;
        let received = receive(served);
        let time = since(start);
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((sent?, received?, time))
    })
}

fn send(mut stream: TcpStream, end: Duration) -> io::Result<u64> {
    let chunk = vec![0x5a; CHUNK];
    let mut sent = 0;
    while now() < end {
        stream.write_all(&chunk)?;
        sent += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn receive(mut stream: TcpStream) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(received),
            length => received += length as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_said_in_bits_and_its_amount_in_bytes() {
        let rate = Rate {
            family: Family::V4,
            from: "app",
            to: "web",
            ok: true,
            bytes: 2_500_000_000,
            micros: 2_000_000,
            error: None,
        };
        assert_eq!(rate.in_words(), "10.00 Gbit/s: 2.33 GiB in 2.00 s");
    }
}
