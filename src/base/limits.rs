//! Every bound of the switch, each with its reason. A bound that is not here does not exist.

use super::time::Span;

/// Ports of one switch. `PortId` has sixteen bits; the last value stands for "no port".
pub const PORTS_MAX: usize = 65_535;
/// Networks of one switch: the top bit of a domain marks uplinks.
pub const NETWORKS_MAX: usize = 4_096;
/// Uplinks of one switch; a handful is usual.
pub const UPLINKS_MAX: usize = 64;
/// Learned MAC addresses of one network. The kernel's bridge has no bound; we do.
pub const FDB_ENTRIES_MAX: usize = 65_536;
/// Learned MAC addresses behind one port, so that one container cannot fill the network's table.
pub const FDB_ENTRIES_PER_PORT_MAX: usize = 1_024;
/// IEEE 802.1D ageing time of a learned address.
pub const FDB_AGEING: Span = Span::from_secs(300);
/// Flows of one worker by default: at 192 bytes a flow, 200 MB when full.
pub const FLOWS_MAX: usize = 1_048_576;
/// Flows that one endpoint may begin by default: a quarter, so that no container fills the table alone.
pub const FLOWS_PER_PORT_MAX: usize = FLOWS_MAX / 4;
/// Mappings of one worker: inside endpoints that have an outside port.
pub const MAPPINGS_MAX: usize = 262_144;
/// Mappings of one endpoint by default: half of the ports of one outside address.
pub const MAPPINGS_PER_PORT_MAX: usize = 32_768;
/// Outside addresses times protocols that mappings are made on, per worker; a port map takes 8 KiB and
/// up to 260 KiB more when all of its ports are in use.
pub const PORT_SPACES_MAX: usize = 256;
/// Remote addresses that one mapping remembers for filtering. An inside socket that has spoken to more
/// forgets the earliest; flows that exist are not concerned.
pub const MAPPING_CONTACTS_MAX: usize = 512;
/// Publications of one switch.
pub const PUBLICATIONS_MAX: usize = 65_536;
/// Neighbours known on one uplink, after the kernel's `gc_thresh3`.
pub const NEIGHBOURS_MAX: usize = 1_024;
/// Frames held while one neighbour is being resolved, after the kernel's `unres_qlen`.
pub const NEIGHBOUR_HOLD_FRAMES_MAX: usize = 16;
/// Frames held for all unresolved neighbours together.
pub const HOLD_FRAMES_MAX: usize = 256;
/// Fragment trains being tracked at once, per worker.
pub const FRAGMENT_TRAINS_MAX: usize = 1_024;
/// Fragment trains of one source address.
pub const FRAGMENT_TRAINS_PER_SOURCE_MAX: usize = 64;
/// How long fragments wait for their first one (RFC 791 asks for 15 s at least, Linux waits 30 s).
pub const FRAGMENT_TIMEOUT: Span = Span::from_secs(30);
/// Bytes of fragments held out of order, per worker.
pub const FRAGMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// ICMP errors a second towards one port (RFC 1812 4.3.2.8, RFC 4443 2.4 f), bursts of the same size.
pub const ICMP_ERRORS_PER_SECOND: u32 = 100;
/// Flooded frames a second from one port: broadcast, multicast, unknown unicast together.
pub const FLOODS_PER_SECOND: u32 = 10_000;
/// The largest IP packet, which is what a super-frame carries.
pub const IP_PACKET_MAX: usize = 65_535;
/// An Ethernet header and the largest IP packet.
pub const FRAME_MAX: usize = IP_PACKET_MAX + 14;
/// Room before a frame's Ethernet header: the virtio-net header (10), which thus starts on a cache
/// line and puts the IP header on an eight-byte boundary, and 128 bytes for what may be put before the
/// frame: outer Ethernet (14), IPv6 (40), UDP (8), VXLAN (8) or WireGuard (32), or an ICMP error (48).
pub const HEADROOM: usize = 138;
/// Frames of one batch. 64 is where the gain of batching has flattened (VPP uses 256, OVS 32).
pub const BATCH_FRAMES_MAX: usize = 64;
/// Bytes of one batch's arena: four super-frames, to stay inside a core's L2 cache.
pub const BATCH_BYTES_MAX: usize = 4 * (FRAME_MAX + HEADROOM).next_multiple_of(64);
/// Frames queued towards a port that cannot take more, before they are dropped by name.
pub const EGRESS_QUEUE_FRAMES_MAX: usize = 256;
/// Bytes queued towards such a port.
pub const EGRESS_QUEUE_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(BATCH_BYTES_MAX >= FRAME_MAX + HEADROOM);
const _: () = assert!(NETWORKS_MAX <= 0x8000 && UPLINKS_MAX <= 0x8000);
