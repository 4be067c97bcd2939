//! Every bound of the switch, each with its reason. A bound that is not here does not exist.

use super::time::Span;

/// Ports of one switch. `PortId` has sixteen bits; the last value stands for "no port".
pub const PORTS_MAX: usize = 65_535;
/// Networks of one switch: the top bit of a domain marks uplinks.
pub const NETWORKS_MAX: usize = 4_096;
/// Uplinks of one switch; a handful is usual.
pub const UPLINKS_MAX: usize = 64;
/// Other nodes of one cluster: ten times what Kubernetes is tested with would still fit the ports.
pub const PEERS_MAX: usize = 10_000;
/// Learned MAC addresses of one network. The kernel's bridge has no bound; we do.
pub const FDB_ENTRIES_MAX: usize = 65_536;
/// Learned MAC addresses behind one port, so that one container cannot fill the network's table.
pub const FDB_ENTRIES_PER_PORT_MAX: usize = 1_024;
/// IEEE 802.1D ageing time of a learned address.
pub const FDB_AGEING: Span = Span::from_secs(300);
/// Moves of one MAC between ports within a second before it counts as flapping. A live migration needs
/// one; a loop or a thief makes thousands, and each would throw away flows.
pub const FDB_MOVES_PER_SECOND: u8 = 5;
/// Flows of one worker by default: at 192 bytes a flow, 200 MB when full.
pub const FLOWS_MAX: usize = 1_048_576;
/// Flows of one worker whatever the configuration says: an entry of its index has 24 bits, one of which
/// is the direction. It would take 1.5 GB.
pub const FLOWS_CEILING: usize = (1 << 23) - 1;
/// Flows that one endpoint may begin by default: a quarter, so that no container fills the table alone.
pub const FLOWS_PER_PORT_MAX: usize = FLOWS_MAX / 4;
/// Mappings of one worker: inside endpoints that have an outside port.
pub const MAPPINGS_MAX: usize = 262_144;
/// Mappings of one endpoint by default: half of the ports of one outside address.
pub const MAPPINGS_PER_PORT_MAX: usize = 32_768;
/// Ranges of outside ports from which on nobody takes more than his part of them: of fewer, a quarter would
/// be a handful.
pub const SHARED_PORTS_MIN: u32 = 64;
/// Outside addresses times protocols that mappings are made on, per worker; a port map takes 8 KiB and
/// up to 260 KiB more when all of its ports are in use.
pub const PORT_SPACES_MAX: usize = 256;
/// Remote addresses that one mapping remembers for filtering. An inside socket that has spoken to more
/// forgets the earliest; flows that exist are not concerned.
pub const MAPPING_CONTACTS_MAX: usize = 512;
/// SYNs from outside held for six seconds (RFC 5382 REQ-4), per worker: some 300 KB when full. Those of
/// a scan beyond it get no answer.
pub const HELD_SYNS_MAX: usize = 1_024;
/// Bytes of such a frame: headers with all options fit, the data of a fast open do not.
pub const HELD_SYN_BYTES_MAX: usize = 256;
/// Beginnings and ends of flows kept for followers, per worker: 3 MB, and only while somebody follows.
pub const FLOW_EVENTS_MAX: usize = 16_384;
/// Policies of one switch, and namespaces that they look at.
pub const POLICIES_MAX: usize = 16_384;
/// Pairs of a peer and a port in all policies together: what compiling them costs. The bar is 10,000 rules.
pub const POLICY_ENTRIES_MAX: usize = 1_000_000;
/// Bytes of a policy's name, as Kubernetes has it for objects.
pub const POLICY_NAME_MAX: usize = 253;
/// Pairs of a name and an address that one container was given and that rules about names look at.
pub const LEARNED_PER_PORT_MAX: usize = 1_024;
/// Of all containers, per worker: 8 MB.
pub const LEARNED_MAX: usize = 65_536;
/// Denied flows that are told a second, per worker: people read them, metrics count them all.
pub const DENIALS_PER_SECOND: u64 = 50;
/// Of these, one port's: a container that knocks everywhere does not drown the others.
pub const DENIALS_PER_SECOND_AND_PORT: u64 = 5;
/// Publications of one switch.
pub const PUBLICATIONS_MAX: usize = 65_536;
/// Services of one switch: at ten backends each, 25 MB of tables.
pub const SERVICES_MAX: usize = 16_384;
/// Backends of one service: its table then has 131,072 places in 256 KiB, made anew in 2 ms.
pub const SERVICE_BACKENDS_MAX: usize = 1_000;
/// Attempts at backends that are asked whether they serve, at one time: at 5 KiB each, 1.3 MB.
pub const HEALTH_ATTEMPTS_MAX: usize = 256;
/// Bytes of the path that a backend is asked for: with its headers it fits one buffer.
pub const HEALTH_PATH_MAX: usize = 512;
/// Ports of one service.
pub const SERVICE_PORTS_MAX: usize = 64;
/// The heaviest backend's weight, so that a canary's hundredth is a weight of 1 beside 99.
pub const SERVICE_WEIGHT_MAX: u16 = 100;
/// Clients whose backend is remembered, per worker; one beyond it takes the place of the one that would
/// be forgotten next, and its backend then follows from its address alone.
pub const AFFINITIES_MAX: usize = 65_536;
/// Neighbours known on one uplink, after the kernel's `gc_thresh3`.
pub const NEIGHBOURS_MAX: usize = 1_024;
/// Of these, neighbours still being asked for: who scans a network cannot push out those that answer.
pub const NEIGHBOURS_UNRESOLVED_MAX: usize = NEIGHBOURS_MAX / 2;
/// Frames held while one neighbour is being resolved, after the kernel's `unres_qlen`.
pub const NEIGHBOUR_HOLD_FRAMES_MAX: usize = 16;
/// Frames held for all unresolved neighbours together.
pub const HOLD_FRAMES_MAX: usize = 256;
/// Fragment trains being tracked at once, per worker.
pub const FRAGMENT_TRAINS_MAX: usize = 1_024;
/// Fragment trains of one source address.
pub const FRAGMENT_TRAINS_PER_SOURCE_MAX: usize = 64;
/// Fragments of one train held, and gaps in it: 65,535 bytes in pieces of 576.
pub const FRAGMENTS_PER_TRAIN_MAX: usize = 128;
/// How long fragments wait for their first one (RFC 791 asks for 15 s at least, Linux waits 30 s).
pub const FRAGMENT_TIMEOUT: Span = Span::from_secs(30);
/// Bytes of fragments held out of order, per worker; and of datagrams that are being put together.
pub const FRAGMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of datagrams of one source that are being put together: eight of the largest.
pub const FRAGMENT_BYTES_PER_SOURCE_MAX: usize = 8 * 64 * 1024;
/// ICMP errors a second towards one port (RFC 1812 4.3.2.8, RFC 4443 2.4 f), bursts of the same size.
pub const ICMP_ERRORS_PER_SECOND: u32 = 100;
/// Flooded frames a second from one port: broadcast, multicast, unknown unicast together.
pub const FLOODS_PER_SECOND: u32 = 10_000;
/// Prefixes taken from one router advertisement; Linux has no bound, real routers send one or two.
pub const ADVERTISED_PREFIXES_MAX: usize = 16;
/// Addresses and routers taken from advertisements on one uplink, after Linux's `max_addresses`.
pub const ADVERTISED_ADDRESSES_MAX: usize = 16;
/// The largest IP packet, which is what a super-frame carries.
pub const IP_PACKET_MAX: usize = 65_535;
/// An Ethernet header and the largest IP packet.
pub const FRAME_MAX: usize = IP_PACKET_MAX + 14;
/// Room before a frame's Ethernet header: the virtio-net header (10), which thus starts on a cache
/// line and puts the IP header on an eight-byte boundary, and 128 bytes for what may be put before the
/// frame: outer Ethernet (14), IPv6 (40), UDP (8), VXLAN (8) or WireGuard (32), or an ICMP error (48).
pub const HEADROOM: usize = 138;
/// Bytes of one message between the daemon, an attacher and the holder: a request with 64 labels of
/// the lengths that Kubernetes allows fits several times over, and a socket's default buffer holds it.
pub const CONTROL_MESSAGE_MAX: usize = 64 * 1024;
/// Descriptors of one such message: the queues of one TAP. The kernel's own bound is 253.
pub const CONTROL_FDS_MAX: usize = 64;
/// Receive buffer of a packet socket: the kernel's default holds 12 super-frames and loses the rest of a
/// burst; with 4 MiB none of 74 was lost. Asked for double that; what is granted is read back.
pub const PACKET_RECEIVE_BYTES: usize = 8 * 1024 * 1024;
/// Send buffer of a packet socket: some 30 super-frames between us and the card.
pub const PACKET_SEND_BYTES: usize = 4 * 1024 * 1024;
/// How long one side of the attach protocol waits for the other's next message.
pub const ATTACH_PATIENCE: Span = Span::from_secs(10);
/// Entries that the holder keeps: a TAP for each port, listeners and sockets beside them.
pub const HOLDER_ENTRIES_MAX: usize = PORTS_MAX;
/// How long a client waits for the answer to one API request: a worker's own patience and then some.
pub const API_PATIENCE: Span = Span::from_secs(30);
/// Bytes of one API request's body: a publication of every port by itself fits.
pub const API_BODY_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one API answer that a client takes: 200,000 flows as JSON.
pub const API_REPLY_MAX: usize = 128 * 1024 * 1024;
/// Connections to the API at one time; further ones wait in the socket's backlog.
pub const API_CONNECTIONS_MAX: usize = 256;
/// Readers of metrics served by TCP at one time: a few scrapers, each of which is done in milliseconds.
pub const METRICS_READERS_MAX: usize = 16;
/// Attachers served at one time; further ones wait in the socket's backlog.
pub const ATTACHERS_MAX: usize = 32;
/// Events queued for one follower of the API before it misses some.
pub const EVENTS_QUEUED_MAX: usize = 4_096;
/// Frames of one batch. 64 is where the gain of batching has flattened (VPP uses 256, OVS 32).
pub const BATCH_FRAMES_MAX: usize = 64;
/// Bytes of one batch's arena: four super-frames, to stay inside a core's L2 cache.
pub const BATCH_BYTES_MAX: usize = 4 * (FRAME_MAX + HEADROOM).next_multiple_of(64);
/// Segments that a super-frame is cut into: twice what MSS 536 (RFC 9293 3.7.1) makes of 64 KiB, and
/// twice the kernel's `UDP_MAX_SEGMENTS`. A sender who asks for more wants us to make a system call a byte.
pub const SEGMENTS_MAX: usize = 256;
/// Headers repeated before each segment: Ethernet (14), IPv6 (40), TCP with options (60), and as much
/// again in extension headers, of which Linux sends at most a few words with a super-frame.
pub const SPLIT_HEADERS_MAX: usize = 256;
/// Frames queued towards a port that cannot take more, before they are dropped by name.
pub const EGRESS_QUEUE_FRAMES_MAX: usize = 256;
/// Bytes queued towards such a port.
pub const EGRESS_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// TCP connections of one worker's socket uplink: each also costs a descriptor and the kernel's own
/// socket (2.4 KB and its buffers), so the descriptor limit is usually met first.
pub const SOCKET_TCP_FLOWS_MAX: usize = 65_536;
/// Closed TCP connections remembered for the sake of a last segment that was lost; beyond this they are
/// forgotten at once, which costs the container a reset instead of an acknowledgement.
pub const SOCKET_TIME_WAITS_MAX: usize = 16_384;
/// UDP sockets of one worker's socket uplink, one for each inside address and port.
pub const SOCKET_UDP_FLOWS_MAX: usize = 16_384;
/// Clients of published UDP ports remembered at once; they share the listening sockets.
pub const SOCKET_UDP_CLIENTS_MAX: usize = 16_384;
/// Ping sockets of one worker, one for each inside address and echo identifier.
pub const SOCKET_PING_FLOWS_MAX: usize = 1_024;
/// Socket flows of one port, so that one container cannot use up the table or the descriptors.
pub const SOCKET_FLOWS_PER_PORT_MAX: u32 = 16_384;
/// TCP connections of one port that are not established yet: a SYN flood stops here.
pub const SOCKET_EMBRYONIC_PER_PORT_MAX: u32 = 512;
/// Our own memory for one socket flow, busy or idle (the kernel's sockets hold the data).
pub const SOCKET_FLOW_BYTES_MAX: usize = 1_024;
/// Descriptors that flows leave to everything else: when flows have used up the limit, whoever asks why
/// must still be answered, and containers come and go.
pub const SOCKET_DESCRIPTORS_RESERVED: u64 = 64;
/// Bytes of one TCP flow that came before an earlier segment and are held until it is there: the window
/// of a fast stream, so that one late super-frame does not cost the sixteen behind it.
pub const SOCKET_HELD_BYTES_PER_FLOW_MAX: usize = 1024 * 1024;
/// Gaps of one TCP flow behind which bytes are held. A sender without SACK closes one a round trip.
pub const SOCKET_HELD_RANGES_MAX: usize = 16;
/// TCP flows that hold something at once, per worker; they are found by looking at each.
pub const SOCKET_HELD_FLOWS_MAX: usize = 256;
/// Bytes that all TCP flows of a worker hold. A worker has this much once, not a flow.
pub const SOCKET_HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Remote addresses a UDP socket filters by (RFC 4787 REQ-8). An application that has spoken to more is
/// peer-to-peer and wants to be reached, so its filter opens.
pub const SOCKET_UDP_REMOTES_MAX: usize = 8;
/// Datagrams of one train sent by UDP_SEGMENT: 64 before Linux 6.9, and 63 leaves room for its header.
pub const SOCKET_UDP_TRAIN_MAX: u32 = 63;
/// Bytes of one such train: below the largest UDP payload of both families.
pub const SOCKET_UDP_TRAIN_BYTES_MAX: u32 = 65_000;
/// Datagrams of one socket received in a row before others have their turn: some 50 µs.
pub const SOCKET_RECEIVE_TURN: usize = 128;
/// Datagrams of one train to another node: 64 before Linux 6.9, and 63 leaves room for its header.
pub const TUNNEL_TRAIN_MAX: u32 = 63;
/// Bytes of one such train: below the largest UDP payload of both families (65,507 and 65,527).
pub const TUNNEL_TRAIN_BYTES_MAX: u32 = 65_000;
/// Packets that wait for a node's answer to a handshake, for each node (the kernel keeps 128): a burst of
/// first packets, and no more than 1 MB at 1,000 nodes that are silent and asked for small ones.
pub const WIREGUARD_WAITING_MAX: usize = 64;
/// Handshakes a second that are begun for strangers without asking them to show where they are: each costs
/// some 0.1 ms.
pub const WIREGUARD_HANDSHAKES_PER_SECOND: u64 = 200;
/// Names asked of the host's resolvers at one time, per worker; each takes a descriptor or two.
pub const NAMES_ASKED_MAX: usize = 512;
/// Queries of one port that wait for an answer, so that one container's flood leaves the others theirs.
pub const NAMES_WAITING_PER_PORT_MAX: u32 = 128;
/// Queries that wait for the same answer.
pub const NAMES_WAITING_ALIKE_MAX: usize = 64;
/// How often one name is asked for, all resolvers together: twice round the three of a resolv.conf.
pub const NAMES_ATTEMPTS_MAX: u8 = 6;
/// The host's resolvers that are asked; the C library takes three.
pub const NAMES_RESOLVERS_MAX: usize = 8;
/// When a client is told that nobody answers: before the C library's own patience (5 s) ends.
pub const NAMES_PATIENCE: Span = Span::from_millis(4_500);
/// Answers kept, per worker.
pub const NAMES_CACHED_MAX: usize = 8_192;
/// Of these, on the account of one port.
pub const NAMES_CACHED_PER_PORT_MAX: usize = NAMES_CACHED_MAX / 4;
/// Bytes of them.
pub const NAMES_CACHED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of these, on the account of one port.
pub const NAMES_CACHED_BYTES_PER_PORT_MAX: usize = NAMES_CACHED_BYTES_MAX / 4;
/// Seconds an answer is kept at most, whatever it says.
pub const NAMES_TTL_MAX: u32 = 3_600;
/// Seconds it is kept that there is no such name: somebody may be about to make it (RFC 2308 5 allows hours).
pub const NAMES_NEGATIVE_TTL_MAX: u32 = 300;
/// How long it is kept that nobody answers (RFC 9520 3.2 asks for a second at least).
pub const NAMES_FAILURE_KEPT: Span = Span::from_secs(1);
/// Connections to name servers of ours, per worker: at 10 KiB each, 2.5 MB.
pub const NAMES_STREAMS_MAX: usize = 256;
/// Of these, one port's.
pub const NAMES_STREAMS_PER_PORT_MAX: u32 = 16;
/// Queries of one connection that are being answered; the next one is left in the client's send queue.
pub const NAMES_PIPELINED_MAX: u32 = 16;
/// Bytes of answers that a connection's client has not taken, before no further query is read of it.
pub const NAMES_STREAM_BACKLOG_MAX: usize = 64 * 1024;
/// Bytes of a query on a connection. One with every option that exists has a few hundred.
pub const NAMES_QUERY_BYTES_MAX: usize = 4_096;
/// A connection on which nothing happens is closed (RFC 7766 6.2.3 asks for a few seconds).
pub const NAMES_STREAM_IDLE: Span = Span::from_secs(10);
/// Resets and ICMP errors a second that segments without a flow may cause, per worker.
pub const SOCKET_REFUSALS_PER_SECOND: u64 = 1_000;

/// Endpoints of one daemon: each is a port, and ports of uplinks and of the host come beside them.
pub const ENDPOINTS_MAX: usize = 16_384;
/// Worker threads; more than cores never help, and each has its own flow table.
pub const WORKERS_MAX: usize = 64;
/// Captures that go on at one time, each with its blocks on the way to its reader.
pub const CAPTURES_MAX: usize = 4;
/// Bytes of copies after which a block is handed to the reader; with a batch more it is whole.
pub const CAPTURE_BLOCK_BYTES: usize = 256 * 1024;
/// Frames of a block, since small ones cost more for what is noted than for their bytes.
pub const CAPTURE_BLOCK_FRAMES: usize = 2_048;
/// Blocks on their way to a reader: some 8 MB, a hundredth of a second of bulk.
pub const CAPTURE_BLOCKS_MAX: usize = 32;
/// Events kept for readers that come later or are slow.
pub const EVENTS_KEPT: usize = 1_024;
/// Names, labels and aliases of one endpoint, so that one record stays small.
pub const LABELS_MAX: usize = 256;
/// Bytes of a name: DNS's bound for a label (RFC 1035 2.3.4), since names become host names.
pub const NAME_MAX: usize = 63;
/// Bytes of a label's key or value.
pub const LABEL_BYTES_MAX: usize = 4_096;
/// Nodes of one cluster that a node keeps routes to.
pub const CLUSTER_NODES_MAX: usize = 8_192;
/// Endpoints of the whole cluster that a node keeps: at some 500 bytes each, 128 MB if all are there.
pub const CLUSTER_ENDPOINTS_MAX: usize = 262_144;
/// Subnets that a cluster network is cut into: more nodes than that none keeps.
pub const CLUSTER_SUBNETS_MAX: u32 = 65_536;
/// Bytes of one record of the cluster's store (etcd's own bound for a request is 1.5 MB).
pub const CLUSTER_RECORD_BYTES_MAX: usize = 32 * 1024;
/// Changes of one transaction (etcd's default bound is 128).
pub const CLUSTER_OPS_MAX: usize = 64;
/// Keys of the cluster's store that cannot be read and are told of.
pub const CLUSTER_FAULTS_MAX: usize = 256;
/// Bytes of one answer of the cluster's store; a page of a list is the longest.
pub const CLUSTER_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys of one page of a list.
pub const CLUSTER_PAGE: usize = 1_000;

const _: () = assert!(BATCH_BYTES_MAX >= FRAME_MAX + HEADROOM);
const _: () = assert!(NETWORKS_MAX < 0x7fff && UPLINKS_MAX <= 0x8000);
