//! `slirp4netns`' socket: one JSON object asks, one answers, then the connection ends.
//!
//! ```text
//! {"execute": "add_hostfwd", "arguments": {"proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8080,
//!                                          "guest_addr": "10.0.2.100", "guest_port": 80}}
//! {"return":{"id":1}}
//! ```

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::switch::{GUEST, Switch};
use crate::cli::daemon::attaching::lock;
use crate::cli::output::Failure;
use crate::control::model::{PortRange, Proto, PublishSpec};

/// A request must be shorter.
const REQUEST_MAX: usize = 4096;
/// The kernel's bound on a socket's path, with its end.
const PATH_MAX: usize = 108;
/// How long a caller may take for his request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, removed at the end.
#[derive(Debug)]
pub(super) struct Api {
    listener: UnixListener,
    path: PathBuf,
}

impl Api {
    /// Listens at `path`; what lies there gives way, as it may be a predecessor's.
    pub(super) fn bind(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str().len() >= PATH_MAX {
            let what = format!("the specified API socket path is too long (>= {PATH_MAX})");
            return Err(Failure::new(what).hint("choose a shorter one"));
        }
        let path = std::path::absolute(path)?;
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|error| {
            Failure::new(format!("cannot listen at {}: {error}", path.display()))
        })?;
        Ok(Self { listener, path })
    }

    /// The directory that the socket is in.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Answers from now on; what is returned removes the socket when it is dropped.
    pub(super) fn serve(self, switch: Switch, guest: Ipv4Addr) -> Result<Cleanup, Failure> {
        let Self { listener, path } = self;
        let mut forwards = Forwards { next: 1, kept: Vec::new(), guest };
        std::thread::Builder::new().name("api".to_owned()).spawn(move || {
            for connection in listener.incoming().flatten() {
                if let Err(error) = answer(&connection, &mut forwards, &mut Published(&switch)) {
                    tracing::warn!(%error, "the API socket");
                }
            }
        })?;
        Ok(Cleanup(path))
    }
}

/// Removes a file at the end.
#[derive(Debug)]
pub(super) struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads one request. Callers may keep their side open, so it ends where its JSON ends.
fn answer(
    mut connection: &UnixStream,
    forwards: &mut Forwards,
    ports: &mut dyn Ports,
) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut chunk = [0; REQUEST_MAX];
    let reply = loop {
        let n = connection.read(&mut chunk)?;
        request.extend_from_slice(&chunk[..n]);
        if request.len() >= REQUEST_MAX {
            break error("too large message");
        }
        match parse(&request) {
            Err(unfinished) if unfinished.is_eof() && n > 0 => {}
            parsed => break forwards.handle(parsed.ok(), ports),
        }
    };
    connection.write_all(reply.as_bytes())
}

/// The first value; what follows it counts as little as it does for the original.
fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    Value::deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}

/// Whoever publishes ports.
trait Ports {
    fn publish(&mut self, spec: &PublishSpec) -> Result<(), String>;
    fn unpublish(&mut self, spec: &PublishSpec) -> Result<(), String>;
}

struct Published<'a>(&'a Switch);

impl Ports for Published<'_> {
    fn publish(&mut self, spec: &PublishSpec) -> Result<(), String> {
        let done = lock(self.0).publish(GUEST, None, std::slice::from_ref(spec));
        done.map(drop).map_err(|error| error.to_string())
    }

    fn unpublish(&mut self, spec: &PublishSpec) -> Result<(), String> {
        let done = lock(self.0).unpublish(GUEST, None, std::slice::from_ref(spec));
        done.map(drop).map_err(|error| error.to_string())
    }
}

/// What is forwarded.
#[derive(Debug)]
struct Forwards {
    next: u32,
    kept: Vec<Forward>,
    guest: Ipv4Addr,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Forward {
    id: u32,
    proto: &'static str,
    host_addr: Ipv4Addr,
    host_port: u16,
    guest_addr: Ipv4Addr,
    guest_port: u16,
}

impl Forward {
    fn spec(&self) -> PublishSpec {
        PublishSpec {
            host_addr: Some(self.host_addr.into()),
            host_ports: Some(PortRange::single(self.host_port)),
            ports: PortRange::single(self.guest_port),
            proto: if self.proto == "udp" { Proto::Udp } else { Proto::Tcp },
        }
    }
}

impl Forwards {
    fn handle(&mut self, request: Option<Value>, ports: &mut dyn Ports) -> String {
        let Some(request) = request else { return error("cannot parse JSON") };
        let Value::Object(request) = request else { return error("json_object() failed") };
        let Some(execute) = request.get("execute").and_then(Value::as_str) else {
            return error("no execute found");
        };
        let nothing = Value::Null;
        let arguments = request.get("arguments").unwrap_or(&nothing);
        let done = match execute {
            "add_hostfwd" => {
                self.add(arguments, ports).map_err(|why| format!("add_hostfwd: {why}"))
            }
            "list_hostfwd" => Ok(self.list()),
            "remove_hostfwd" => {
                self.remove(arguments, ports).map_err(|why| format!("remove_hostfwd: {why}"))
            }
            _ => Err("unknown execute".to_owned()),
        };
        done.unwrap_or_else(|why| error(&why))
    }

    fn add(&mut self, arguments: &Value, ports: &mut dyn Ports) -> Result<String, String> {
        let proto = match text(arguments, "proto") {
            "tcp" => "tcp",
            "udp" => "udp",
            _ => return Err("bad arguments.proto".to_owned()),
        };
        let forward = Forward {
            id: self.next,
            proto,
            host_addr: address(arguments, "host_addr", Ipv4Addr::UNSPECIFIED)?,
            host_port: port(arguments, "host_port")?,
            guest_addr: address(arguments, "guest_addr", self.guest)?,
            guest_port: port(arguments, "guest_port")?,
        };
        let failed = |why: &str| {
            tracing::warn!("{proto} port {} is not forwarded: {why}", forward.host_port);
            "slirp_add_hostfwd failed".to_owned()
        };
        if forward.guest_addr != self.guest {
            return Err(failed("the container has another address"));
        }
        ports.publish(&forward.spec()).map_err(|why| failed(&why))?;
        let reply = format!("{{\"return\":{{\"id\":{}}}}}", forward.id);
        self.next += 1;
        self.kept.push(forward);
        Ok(reply)
    }

    fn list(&self) -> String {
        let entries = serde_json::to_string(&self.kept).unwrap_or_default();
        format!("{{\"entries\":{entries}}}")
    }

    fn remove(&mut self, arguments: &Value, ports: &mut dyn Ports) -> Result<String, String> {
        let id = number(arguments, "id");
        let at = self.kept.iter().position(|forward| Some(i64::from(forward.id)) == id);
        let at = at.ok_or("bad arguments.id")?;
        ports.unpublish(&self.kept[at].spec()).map_err(|why| {
            tracing::warn!("{why}");
            "slirp_remove_hostfwd failed".to_owned()
        })?;
        self.kept.remove(at);
        Ok("{\"return\":{}}".to_owned())
    }
}

fn error(why: &str) -> String {
    format!("{{\"error\":{{\"desc\":\"bad request: {why}\"}}}}")
}

fn text<'a>(arguments: &'a Value, key: &str) -> &'a str {
    arguments.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// JSON knows one kind of numbers: 80.0 is a port, too.
fn number(arguments: &Value, key: &str) -> Option<i64> {
    let value = arguments.get(key)?;
    value.as_i64().or_else(|| value.as_f64().map(|float| float as i64))
}

fn address(arguments: &Value, key: &str, default: Ipv4Addr) -> Result<Ipv4Addr, String> {
    match text(arguments, key) {
        "" => Ok(default),
        text => text.parse().map_err(|_| format!("bad arguments.{key}")),
    }
}

fn port(arguments: &Value, key: &str) -> Result<u16, String> {
    let port = number(arguments, key).and_then(|number| u16::try_from(number).ok());
    port.filter(|port| *port != 0).ok_or_else(|| format!("bad arguments.{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Publishes everything but port 1.
    #[derive(Default)]
    struct Fake(Vec<String>);

    impl Ports for Fake {
        fn publish(&mut self, spec: &PublishSpec) -> Result<(), String> {
            if spec.host_ports == Some(PortRange::single(1)) {
                return Err("taken".to_owned());
            }
            self.0.push(spec.to_string());
            Ok(())
        }

        fn unpublish(&mut self, spec: &PublishSpec) -> Result<(), String> {
            self.0.retain(|kept| *kept != spec.to_string());
            Ok(())
        }
    }

    /// Requests and the original's own answers to them (version 1.2.0), in one conversation.
    const CONVERSATION: &[(&str, &str)] = &[
        ("badjson", r#"{"error":{"desc":"bad request: cannot parse JSON"}}"#),
        (r#"{"unexpected":1}"#, r#"{"error":{"desc":"bad request: no execute found"}}"#),
        ("[1]", r#"{"error":{"desc":"bad request: json_object() failed"}}"#),
        (r#"{"execute":"bad"}"#, r#"{"error":{"desc":"bad request: unknown execute"}}"#),
        (r#"{"execute":"list_hostfwd"}"#, r#"{"entries":[]}"#),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"bad"}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: bad arguments.proto"}}"#,
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"x","host_port":80,"guest_port":80}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: bad arguments.host_addr"}}"#,
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","guest_port":80}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: bad arguments.host_port"}}"#,
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":80}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: bad arguments.guest_port"}}"#,
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":80,"guest_addr":"x","guest_port":80}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: bad arguments.guest_addr"}}"#,
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":1,"guest_port":80}}"#,
            r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#,
        ),
        (
            "{\"execute\":\"add_hostfwd\",\"arguments\":{\"proto\":\"tcp\",\"host_addr\":\"\",\"host_port\":8080.0,\"guest_addr\":\"\",\"guest_port\":80}}\n",
            r#"{"return":{"id":1}}"#,
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"127.0.0.1","host_port":8081,"guest_addr":"10.0.2.100","guest_port":81}} trailing"#,
            r#"{"return":{"id":2}}"#,
        ),
        (
            r#"{"execute":"list_hostfwd"}"#,
            r#"{"entries":[{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80},{"id":2,"proto":"udp","host_addr":"127.0.0.1","host_port":8081,"guest_addr":"10.0.2.100","guest_port":81}]}"#,
        ),
        (
            r#"{"execute":"remove_hostfwd","arguments":{"id":42}}"#,
            r#"{"error":{"desc":"bad request: remove_hostfwd: bad arguments.id"}}"#,
        ),
        (r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#, r#"{"return":{}}"#),
        (
            r#"{"execute":"list_hostfwd"}"#,
            r#"{"entries":[{"id":2,"proto":"udp","host_addr":"127.0.0.1","host_port":8081,"guest_addr":"10.0.2.100","guest_port":81}]}"#,
        ),
    ];

    #[test]
    fn a_conversation_goes_as_with_the_original() {
        let mut ports = Fake::default();
        let guest = Ipv4Addr::new(10, 0, 2, 100);
        let mut forwards = Forwards { next: 1, kept: Vec::new(), guest };
        for (request, reply) in CONVERSATION {
            let (theirs, ours) = UnixStream::pair().unwrap();
            (&theirs).write_all(request.as_bytes()).unwrap();
            if !request.starts_with('{') {
                theirs.shutdown(std::net::Shutdown::Write).unwrap();
            }
            answer(&ours, &mut forwards, &mut ports).unwrap();
            drop(ours);
            assert_eq!(io::read_to_string(&theirs).unwrap(), *reply, "{request}");
        }
        assert_eq!(ports.0, ["127.0.0.1:8081:81/udp"]);
    }

    #[test]
    fn an_overlong_request_is_refused() {
        let guest = Ipv4Addr::new(10, 0, 2, 100);
        let mut forwards = Forwards { next: 1, kept: Vec::new(), guest };
        let (theirs, ours) = UnixStream::pair().unwrap();
        (&theirs).write_all(format!("{{{}", " ".repeat(REQUEST_MAX)).as_bytes()).unwrap();
        answer(&ours, &mut forwards, &mut Fake::default()).unwrap();
        drop(ours);
        let reply = io::read_to_string(&theirs);
        // What was not read makes the kernel reset the connection after the answer.
        assert!(reply.is_err() || reply.unwrap().contains("too large message"));
    }
}
