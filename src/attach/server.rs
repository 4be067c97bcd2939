//! The daemon's end: one connection, from hello to reply. Blocking, bounded in time; the daemon runs
//! it on a thread of its own.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use super::protocol::{
    AttachReply, AttachRequest, Attached, Greeting, Hello, Refusal, RefusalCode, parse_request,
    to_bytes,
};
use crate::base::limits::ATTACH_PATIENCE;
use crate::io::fdpass::{Connection, FdPassError, PeerCredentials};
use crate::io::tap::Tap;

/// Who may attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The daemon's own user.
    pub owner: u32,
    /// The group whose members may, if it exists.
    pub group: Option<u32>,
}

/// Why a connection ended without an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The connection broke or the attacher was too slow.
    #[error("the attacher's connection failed: {0}")]
    Connection(#[from] FdPassError),
    /// The attacher's credentials could not be read.
    #[error("cannot tell who the attacher is: {0}")]
    Peer(#[source] std::io::Error),
    /// The attacher was refused, and told why.
    #[error("refused to attach: {}", .0.message)]
    Refused(Refusal),
    /// The endpoint exists, but nobody was there to hear it: it has to be taken back.
    #[error("the attacher went away before it heard of endpoint {}: {source}", .attached.endpoint)]
    ReplyLost {
        /// What it should have heard.
        attached: Box<Attached>,
        /// What happened.
        source: FdPassError,
    },
}

/// Serves one connection. `handle` makes the endpoint, or says why not; it is only called for a
/// caller that may, with a request that was understood and TAPs that are what was agreed upon: so
/// many queues of one interface that has the name of the request.
pub fn serve_one(
    connection: &Connection,
    hello: &Hello,
    access: Access,
    handle: impl FnOnce(AttachRequest, Vec<Tap>, PeerCredentials) -> AttachReply,
) -> Result<Attached, ServeError> {
    connection.set_patience(ATTACH_PATIENCE)?;
    let peer = connection.peer().map_err(ServeError::Peer)?;
    if let Err(refusal) = admit(&peer, access) {
        connection.send(&to_bytes(&Greeting::Refused(refusal.clone())), &[])?;
        return Err(ServeError::Refused(refusal));
    }
    connection.send(&to_bytes(&Greeting::Hello(hello.clone())), &[])?;
    let message = connection.recv()?;
    let reply = match examine(&message.bytes, message.fds, hello) {
        Ok((request, taps)) => handle(request, taps, peer),
        Err(refusal) => AttachReply::Refused(refusal),
    };
    let sent = connection.send(&to_bytes(&reply), &[]);
    match (reply, sent) {
        (AttachReply::Attached(attached), Ok(())) => Ok(attached),
        (AttachReply::Attached(attached), Err(source)) => {
            Err(ServeError::ReplyLost { attached: Box::new(attached), source })
        }
        (AttachReply::Refused(refusal), _) => Err(ServeError::Refused(refusal)),
    }
}

/// Checks all that can be checked without knowing anything about networks.
fn examine(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
    hello: &Hello,
) -> Result<(AttachRequest, Vec<Tap>), Refusal> {
    let request = parse_request(bytes).map_err(|error| {
        let code = match error {
            super::protocol::BadMessage::Version { .. } => RefusalCode::Version,
            super::protocol::BadMessage::Json { .. } => RefusalCode::Invalid,
        };
        Refusal::new(code, error.to_string())
    })?;
    let invalid = |message: String| Refusal::new(RefusalCode::Invalid, message);
    if fds.len() != hello.queues {
        return Err(invalid(format!(
            "{} descriptors came with the request instead of {} queues of a TAP",
            fds.len(),
            hello.queues
        )));
    }
    let mut taps = Vec::with_capacity(fds.len());
    let mut names = BTreeSet::new();
    for fd in fds {
        let tap = Tap::from_fd(fd).map_err(|e| invalid(e.to_string()))?;
        names.insert(tap.interface().map_err(|e| invalid(e.to_string()))?.name);
        taps.push(tap);
    }
    if names.len() != 1 || !names.contains(&request.ifname) {
        let names: Vec<_> = names.into_iter().collect();
        return Err(invalid(format!(
            "the descriptors belong to {} instead of {}",
            names.join(", "),
            request.ifname
        )));
    }
    Ok((request, taps))
}

fn admit(peer: &PeerCredentials, access: Access) -> Result<(), Refusal> {
    if peer.may_speak(access.owner, access.group) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::NotPermitted,
        format!(
            "user {} may not use this daemon: be root, the user it runs as, or a member of the \
             group `wharf` (`usermod -aG wharf NAME`, then log in anew)",
            peer.uid
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;
    use crate::attach::protocol::{parse_greeting, parse_reply};

    fn exchange(request: &[u8], fds: usize) -> AttachReply {
        let access = Access { owner: rustix::process::geteuid().as_raw(), group: None };
        let (ours, theirs) = Connection::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let theirs = theirs;
                let served = serve_one(&theirs, &Hello::new(2), access, |_, _, _| {
                    unreachable!("nothing here is good enough to be handled")
                });
                assert!(matches!(served, Err(ServeError::Refused(_))), "{served:?}");
            });
            let greeting = parse_greeting(&ours.recv().unwrap().bytes).unwrap();
            assert_eq!(greeting, Greeting::Hello(Hello::new(2)));
            ours.send(request, &vec![null.as_fd(); fds]).unwrap();
            parse_reply(&ours.recv().unwrap().bytes).unwrap()
        })
    }

    fn code_of(reply: AttachReply) -> RefusalCode {
        match reply {
            AttachReply::Refused(refusal) => refusal.code,
            AttachReply::Attached(other) => panic!("expected a refusal: {other:?}"),
        }
    }

    #[test]
    fn what_is_no_tap_is_refused_and_never_reaches_the_handler() {
        let request = to_bytes(&AttachRequest::new("blue", "eth0"));
        for fds in [0, 1, 2, 3] {
            let reply = exchange(&request, fds);
            assert_eq!(code_of(reply), RefusalCode::Invalid, "{fds} descriptors");
        }
    }

    #[test]
    fn another_version_and_rubbish_are_refused_by_their_own_codes() {
        let reply = exchange(br#"{"version":99}"#, 2);
        assert_eq!(code_of(reply), RefusalCode::Version);
        let reply = exchange(b"rubbish", 2);
        assert_eq!(code_of(reply), RefusalCode::Invalid);
    }

    #[test]
    fn a_stranger_is_told_who_may() {
        let peer = |uid| PeerCredentials { pid: 1, uid, gid: uid, groups: vec![] };
        let access = Access { owner: 1000, group: Some(998) };
        assert!(admit(&peer(1000), access).is_ok());
        let refusal = admit(&peer(1001), access).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NotPermitted);
        assert!(refusal.message.contains("user 1001") && refusal.message.contains("usermod"));
    }
}
