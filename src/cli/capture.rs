//! `wharf capture`: frames as they pass, into a file or as lines.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::human::timestamp_ns;
use super::options::Global;
use super::output::{Failure, Outcome};
use crate::control::model::{CaptureSide, CaptureSpec};
use crate::io::pcap_filter::{self, FilterError};
use crate::observe::capture::{Form, FrameView};
use crate::packet::bpf::Instruction;

/// `wharf capture`
#[derive(Args, Debug)]
pub(crate) struct Capture {
    /// Only frames of this container, uplink or interface of the host; may be repeated
    #[arg(long = "endpoint", value_name = "NAME")]
    endpoints: Vec<String>,
    /// Only frames that were dropped
    #[arg(long)]
    drops: bool,
    /// Only frames as they came in, or as they left
    #[arg(long, value_name = "STAGE")]
    stage: Option<Stage>,
    /// Keep so many bytes of each frame
    #[arg(long, short, value_name = "BYTES")]
    snaplen: Option<u32>,
    /// End after so many frames
    #[arg(long, short, value_name = "N")]
    count: Option<u64>,
    /// Cut super-frames into what a network card would send
    #[arg(long, requires = "write")]
    segments: bool,
    /// Write pcapng to this file, or to standard output (`-`), instead of a line a frame
    #[arg(long, short, value_name = "FILE")]
    write: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long, conflicts_with = "write")]
    json: bool,
    /// A filter in tcpdump's language, such as `tcp port 80 and host 10.0.0.2`
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// Where frames are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Stage {
    /// As they came in from a port
    Ingress,
    /// As they left by one
    Egress,
}

/// Runs `wharf capture`, until it is interrupted or has all it was asked for.
pub(crate) fn run(global: &Global, args: &Capture) -> Outcome {
    let mut out = args.write.as_deref().map(open).transpose()?;
    let spec = args.spec()?;
    let mut lines = Lines { json: args.json, rest: Vec::new() };
    for chunk in global.client().capture(&spec)? {
        let chunk = chunk?;
        let written = match &mut out {
            Some(file) => file.write_all(&chunk).and_then(|()| file.flush()),
            None => lines.write(&chunk),
        };
        match written {
            Ok(()) => {}
            // `wharf capture | head`, or Wireshark was closed.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::new(format!("cannot write frames: {error}"))),
        }
    }
    Ok(0)
}

fn open(path: &std::path::Path) -> Result<Box<dyn Write>, Failure> {
    if path.as_os_str() != "-" {
        let cannot = |error| Failure::new(format!("cannot write {}: {error}", path.display()));
        return Ok(Box::new(File::create(path).map_err(cannot)?));
    }
    if io::stdout().is_terminal() {
        return Err(Failure::usage("pcapng is not for a terminal")
            .hint("leave `-w -` out, or pipe it: wharf capture -w - | wireshark -k -i -"));
    }
    Ok(Box::new(io::stdout()))
}

impl Capture {
    fn spec(&self) -> Result<CaptureSpec, Failure> {
        let text = self.filter.join(" ");
        let filter = if text.is_empty() { Vec::new() } else { compiled(&text)? };
        Ok(CaptureSpec {
            ports: self.endpoints.clone(),
            drops: self.drops,
            side: self.stage.map(|stage| match stage {
                Stage::Ingress => CaptureSide::Ingress,
                Stage::Egress => CaptureSide::Egress,
            }),
            snap: self.snaplen,
            count: self.count,
            segments: self.segments,
            filter: filter.into_iter().map(|Instruction(op, jt, jf, k)| (op, jt, jf, k)).collect(),
            form: if self.write.is_some() { Form::Pcapng } else { Form::Lines },
        })
    }
}

fn compiled(text: &str) -> Result<Vec<Instruction>, Failure> {
    pcap_filter::compile(text).map_err(|error| match error {
        FilterError::NoLibrary(_) => Failure::new(error)
            .hint("install it (Debian: `apt install libpcap0.8`), or filter later"),
        FilterError::Syntax { .. } => {
            Failure::usage(error).hint("the language is tcpdump's: `man pcap-filter`")
        }
    })
}

/// Lines for people, or as they come.
struct Lines {
    json: bool,
    rest: Vec<u8>,
}

impl Lines {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(chunk);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let mut out = io::stdout().lock();
        if self.json {
            out.write_all(&whole)?;
        } else {
            for line in String::from_utf8_lossy(&whole).lines() {
                writeln!(out, "{}", sentence(line))?;
            }
        }
        out.flush()
    }
}

fn sentence(line: &str) -> String {
    let Ok(view) = serde_json::from_str::<FrameView>(line) else {
        // How many were lost until now.
        return line.to_owned();
    };
    let arrow = if view.side == "ingress" { "->" } else { "<-" };
    let end = view.drop.map_or_else(String::new, |reason| format!("  dropped: {reason}"));
    format!(
        "{}  {:<12} {arrow}  {:>5}  {}{end}",
        timestamp_ns(view.time_ns),
        view.port,
        view.length,
        view.summary
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_line() {
        let view = FrameView {
            time_ns: 1_500_000,
            port: "web".to_owned(),
            side: "ingress".to_owned(),
            length: 74,
            summary: "TCP 10.20.0.2:40000 -> 10.30.0.2:80 [S]".to_owned(),
            drop: Some("network-isolated".to_owned()),
        };
        assert_eq!(
            sentence(&serde_json::to_string(&view).unwrap()),
            "1970-01-01T00:00:00.001500000Z  web          ->     74  TCP 10.20.0.2:40000 -> \
             10.30.0.2:80 [S]  dropped: network-isolated"
        );
    }

    #[test]
    fn lines_that_come_in_pieces_are_written_whole() {
        let mut lines = Lines { json: true, rest: Vec::new() };
        lines.write(b"{\"a").unwrap();
        assert_eq!(lines.rest, b"{\"a");
        lines.write(b"\":1}\n{").unwrap();
        assert_eq!(lines.rest, b"{");
    }
}
