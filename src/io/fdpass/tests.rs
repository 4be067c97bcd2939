use std::io::{Read, Write};

use super::*;

fn pipes(count: usize) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    (0..count).map(|_| rustix::pipe::pipe().unwrap()).unzip()
}

fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

#[test]
fn a_message_arrives_with_its_descriptors_in_order() {
    let (a, b) = Connection::pair().unwrap();
    let (readers, writers) = pipes(3);
    a.send(b"hello", &borrow(&writers)).unwrap();
    drop(writers);
    let message = b.recv().unwrap();
    assert_eq!(message.bytes, b"hello");
    assert_eq!(message.fds.len(), 3);
    for (number, (reader, fd)) in readers.into_iter().zip(message.fds).enumerate() {
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        std::fs::File::from(fd).write_all(&[number as u8]).unwrap();
        let mut text = Vec::new();
        std::fs::File::from(reader).read_to_end(&mut text).unwrap();
        assert_eq!(text, [number as u8]);
    }
}

#[test]
fn the_largest_message_passes_and_a_larger_one_is_refused_before_it_is_sent() {
    let (a, b) = Connection::pair().unwrap();
    let (_readers, writers) = pipes(CONTROL_FDS_MAX + 1);
    let fds = borrow(&writers);
    let bytes = vec![7; CONTROL_MESSAGE_MAX + 1];
    a.send(&bytes[1..], &fds[1..]).unwrap();
    let message = b.recv().unwrap();
    assert_eq!((message.bytes.len(), message.fds.len()), (CONTROL_MESSAGE_MAX, CONTROL_FDS_MAX));
    for (bytes, fds) in [(&bytes[..], &fds[1..]), (&bytes[1..], &fds[..])] {
        assert!(matches!(a.send(bytes, fds), Err(FdPassError::TooLarge { .. })));
    }
}

#[test]
fn an_oversized_message_of_a_stranger_is_an_error_and_its_descriptors_are_closed() {
    let (a, b) = Connection::pair().unwrap();
    for excess in [1, 9] {
        // What a program that keeps to no rule sends: more descriptors than we take.
        let (readers, writers) = pipes(CONTROL_FDS_MAX + excess);
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_FDS_MAX + 9))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = borrow(&writers);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&a, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        let refused = b.recv();
        assert!(
            matches!(refused, Err(FdPassError::Truncated | FdPassError::TooLarge { .. })),
            "{refused:?}"
        );
        drop(writers);
        for reader in readers {
            let mut text = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut text).unwrap();
        }
    }
    let long = vec![0; CONTROL_MESSAGE_MAX + 1];
    rustix::net::send(&a, &long, SendFlags::empty()).unwrap();
    assert!(matches!(b.recv(), Err(FdPassError::Truncated)));
}

#[test]
fn a_closed_end_and_a_silent_end_are_told_apart() {
    let (a, b) = Connection::pair().unwrap();
    b.set_patience(Span::from_millis(20)).unwrap();
    assert!(matches!(b.recv(), Err(FdPassError::TimedOut)));
    drop(a);
    assert!(matches!(b.recv(), Err(FdPassError::Closed)));
    assert!(matches!(b.send(b"x", &[]), Err(FdPassError::Closed)));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attach.sock");
    assert!(matches!(Connection::connect(&path), Err(FdPassError::NotListening { .. })));
    drop(Listener::bind(&path, 0o600, None).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path, 0o660, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(Listener::bind(&path, 0o600, None), Err(FdPassError::InUse(_))));
    let client = Connection::connect(&path).unwrap();
    let _first = listener.accept().unwrap(); // the probe of the second `bind`
    let server = listener.accept().unwrap();
    let peer = server.peer().unwrap();
    assert_eq!(peer.pid, std::process::id());
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    let own: Vec<u32> =
        rustix::process::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
    assert_eq!(peer.groups, own);
    client.send(b"hello", &[]).unwrap();
    assert_eq!(server.recv().unwrap().bytes, b"hello");
}

#[test]
fn a_path_that_is_too_long_is_refused_with_advice() {
    let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    let error = Connection::connect(&path).unwrap_err();
    assert!(error.to_string().contains("--runtime-dir"), "{error}");
}

#[test]
fn root_the_owner_and_the_group_may_speak_and_nobody_else() {
    let peer =
        |uid, gid, groups: &[u32]| PeerCredentials { pid: 1, uid, gid, groups: groups.to_vec() };
    assert!(peer(0, 0, &[]).may_speak(1000, None));
    assert!(peer(1000, 1000, &[]).may_speak(1000, None));
    assert!(!peer(1001, 1001, &[4, 5]).may_speak(1000, None));
    assert!(!peer(1001, 1001, &[4, 5]).may_speak(1000, Some(6)));
    assert!(peer(1001, 1001, &[4, 6]).may_speak(1000, Some(6)));
    assert!(peer(1001, 6, &[]).may_speak(1000, Some(6)));
}

#[test]
fn a_group_is_found_by_its_whole_name() {
    let table = "root:x:0:\nwharfs:x:7:\nwharf:x:998:anna,ben\nbroken\n";
    assert_eq!(find_group(table, "wharf"), Some(998));
    assert_eq!(find_group(table, "broken"), None);
    assert_eq!(find_group(table, "nobody"), None);
}
