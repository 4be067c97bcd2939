//! Requirement, what it asks, what Wharf does, and the test that shows it.

use crate::{rfc4787 as udp, rfc5382 as tcp, rfc5508 as icmp, rfc7857 as updates};

/// How strongly an RFC asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Must,
    Should,
    May,
}

/// One line of the scorecard.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    pub(crate) asks: &'static str,
    pub(crate) does: &'static str,
    /// Paths of tests; none where nothing can be tested.
    pub(crate) tests: Vec<&'static str>,
}

/// One RFC's part of it.
pub(crate) struct Part {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// The path of a test function.
fn name<F: Fn()>(_: F) -> &'static str {
    std::any::type_name::<F>().trim_start_matches("conformance::")
}

fn row(
    (id, level): (&'static str, Level),
    asks: &'static str,
    does: &'static str,
    tests: &[&'static str],
) -> Row {
    Row { id, level, asks, does, tests: tests.to_vec() }
}

/// The whole scorecard.
pub(crate) fn table() -> [Part; 4] {
    [
        Part { title: "RFC 4787: UDP", rows: rfc4787() },
        Part { title: "RFC 5382: TCP", rows: rfc5382() },
        Part { title: "RFC 5508: ICMP (and, by analogy, ICMPv6)", rows: rfc5508() },
        Part { title: "RFC 7857: updates", rows: rfc7857() },
    ]
}

use Level::{May, Must, Should};

#[rustfmt::skip]
fn rfc4787() -> Vec<Row> {
    vec![
        row(("4787 REQ-1", Must), "Mapping is endpoint-independent",
            "One inside socket has one outside port, whatever it speaks to; otherwise only where `--mapping` says so",
            &[name(udp::req_1_one_socket_is_seen_as_one_whatever_it_speaks_to)]),
        row(("4787 REQ-2", Should), "With several outside addresses, a host is paired with one",
            "All leave by the uplink's first address of the family",
            &[name(udp::req_2_all_sockets_of_a_container_are_paired_with_one_address)]),
        row(("4787 REQ-3", Must), "No two inside sockets share an outside port",
            "Each has its own; when there is none left, the next one is refused",
            &[name(udp::req_3_no_two_sockets_share_a_port_and_the_next_one_is_refused)]),
        row(("4787 REQ-3 a", Should), "Ports 0–1023 stay there, and so do 1024–65535",
            "Kept; a well-known port gives way to a high one only when none is left",
            &[name(udp::req_3a_well_known_ports_stay_well_known_and_others_others)]),
        row(("4787 REQ-4", Should), "Even stays even, odd stays odd",
            "Kept while there are such ports",
            &[name(udp::req_4_an_even_port_stays_even_and_an_odd_one_odd)]),
        row(("4787 REQ-5", Must), "A mapping lives for two minutes of silence at least",
            "Five minutes, and five also if it was never answered",
            &[name(udp::req_5_a_mapping_lives_for_two_minutes_at_least)]),
        row(("4787 REQ-5 a", May), "Less for well-known destination ports",
            "Questions to port 53: their flow ends after 30 s, their port is free after 3½ minutes",
            &[name(udp::req_5a_a_question_to_dns_lives_shorter_and_its_port_is_free_again_sooner)]),
        row(("4787 REQ-5 b", May), "The time is configurable", "`[timeouts]` in the config file",
            &[name(udp::req_5b_the_time_can_be_configured)]),
        row(("4787 REQ-5 c", Should), "Five minutes or more by default", "Five minutes",
            &[name(udp::req_5c_by_default_a_mapping_lives_for_five_minutes)]),
        row(("4787 REQ-6", Must), "What goes out keeps it alive", "Yes",
            &[name(udp::req_6_what_goes_out_keeps_a_mapping_alive)]),
        row(("4787 REQ-6 a", May), "What comes in keeps it alive",
            "Yes, unless the uplink has `--outbound-refresh-only`",
            &[name(udp::req_6a_what_comes_in_keeps_it_alive_unless_the_uplink_says_otherwise)]),
        row(("4787 REQ-7", Must), "Inside and outside addresses never conflict, or are told apart",
            "Subnets are chosen around the host's routes; a static uplink address in a network's subnet is refused, a leased one is told as an event; a packet from outside with an inside source is dropped",
            &[name(udp::req_7_an_address_that_is_inside_and_outside_is_never_mixed_up)]),
        row(("4787 REQ-8", Should), "Filtering is endpoint-independent or address-dependent",
            "Address-dependent; all three kinds by `--filtering`",
            &[name(udp::req_8_filtering_is_address_dependent_or_as_configured)]),
        row(("4787 REQ-9", Must), "Hairpinning", "Yes",
            &[name(udp::req_9_two_containers_reach_each_other_by_their_outside_sockets)]),
        row(("4787 REQ-9 a", Must), "Its source is the outside address and port", "Yes",
            &[name(udp::req_9a_the_source_of_such_a_packet_is_the_sender_s_outside_socket)]),
        row(("4787 REQ-10", Should), "Application gateways are off", "There are none",
            &[name(udp::req_10_what_a_datagram_carries_is_nobody_s_business)]),
        row(("4787 REQ-11", Must), "Behaviour is deterministic",
            "The same under load, after collisions and for every container",
            &[name(udp::req_11_nothing_changes_under_load_or_after_a_collision)]),
        row(("4787 REQ-12", Must), "No ICMP message ends a mapping", "None does",
            &[name(udp::req_12_no_icmp_message_ends_a_mapping)]),
        row(("4787 REQ-12 a", Should), "ICMP is not filtered by its source", "It is found by what it quotes",
            &[name(udp::req_12a_icmp_is_not_filtered_by_who_sends_it)]),
        row(("4787 REQ-12 b", Should), "Destination Unreachable is supported", "All codes, in both directions",
            &[name(udp::req_12b_destination_unreachable_is_translated)]),
        row(("4787 REQ-13", Must), "Too large with DF: \"fragmentation needed\" to the sender",
            "With the MTU of the way out, in both families",
            &[name(udp::req_13_a_packet_too_large_is_answered_with_the_mtu)]),
        row(("4787 REQ-13 a", Must), "Too large without DF: fragmented, in order", "Yes (IPv4 only has this)",
            &[name(udp::req_13a_without_df_it_leaves_in_fragments_in_order)]),
        row(("4787 REQ-14", Must), "Fragments are received in and out of order",
            "Those that come before the first one wait for it, up to 30 s",
            &[name(udp::req_14_fragments_pass_in_any_order)]),
        row(("4787 REQ-14 a", Must), "A flood of them harms nobody else",
            "Bounds per source and in all; overlapping ones are dropped (RFC 5722)",
            &[name(udp::req_14a_a_flood_of_fragments_does_not_touch_anybody_else)]),
    ]
}

#[rustfmt::skip]
fn rfc5382() -> Vec<Row> {
    vec![
        row(("5382 REQ-1", Must), "Mapping is endpoint-independent", "As for UDP",
            &[name(tcp::req_1_one_socket_is_seen_as_one_whatever_it_speaks_to)]),
        row(("5382 REQ-2", Must), "All valid sequences of segments, begun inside or, where permitted, outside",
            "Yes",
            &[name(tcp::req_2_connections_begin_from_inside_and_where_permitted_from_outside)]),
        row(("5382 REQ-2 a", Must), "Simultaneous open", "Yes",
            &[name(tcp::req_2a_both_sides_may_begin_at_once)]),
        row(("5382 REQ-3", Should), "Filtering is endpoint-independent or address-dependent",
            "Address-dependent; all three kinds by `--filtering` (a), the same for UDP and TCP (b: not separately)",
            &[name(tcp::req_3_filtering_is_address_dependent_or_as_configured)]),
        row(("5382 REQ-4", Must), "An unsolicited SYN is not answered for six seconds, and never if its connection begins meanwhile; else with \"port unreachable\"",
            "Held for six seconds",
            &[name(tcp::req_4_a_syn_nobody_asked_for_is_answered_after_six_seconds),
              name(tcp::req_4_a_syn_whose_connection_begins_meanwhile_is_never_answered)]),
        row(("5382 REQ-4 a", Must), "No answer where policy forbids it",
            "Beyond 1,024 held SYNs, and for networks that are not published at all",
            &[name(tcp::req_4a_a_flood_of_them_gets_no_answer_beyond_a_bound)]),
        row(("5382 REQ-5", Must), "Established: 2 h 4 min of silence at least; opening or closing: 4 min",
            "Exactly these by default",
            &[name(tcp::req_5_an_idle_connection_lives_for_two_hours_and_four_minutes),
              name(tcp::req_5_one_that_opens_or_closes_lives_for_four_minutes)]),
        row(("5382 REQ-5 a", May), "The times are configurable", "`[timeouts]` in the config file",
            &[name(tcp::req_5a_the_times_can_be_configured)]),
        row(("5382 REQ-6", Should), "Application gateways are off", "There are none, not for FTP either",
            &[name(tcp::req_6_what_a_connection_carries_is_nobody_s_business)]),
        row(("5382 REQ-7", Must), "No two inside sockets share an outside port", "As for UDP",
            &[name(tcp::req_7_no_two_sockets_share_a_port_and_the_next_one_is_refused)]),
        row(("5382 REQ-8", Must), "Hairpinning, with the outside address and port as source", "Yes",
            &[name(tcp::req_8_two_containers_connect_by_their_outside_sockets)]),
        row(("5382 REQ-9", Should), "Destination Unreachable is translated", "Yes",
            &[name(tcp::req_9_destination_unreachable_reaches_the_connection_it_is_about)]),
        row(("5382 REQ-10", Must), "No ICMP message ends a mapping or connection",
            "None does; one whose quoted sequence number was never sent is dropped (RFC 5927)",
            &[name(tcp::req_10_no_icmp_message_ends_a_connection)]),
    ]
}

#[rustfmt::skip]
fn rfc5508() -> Vec<Row> {
    vec![
        row(("5508 REQ-1", Must), "Queries go out and answers come back", "Yes",
            &[name(icmp::req_1_pings_go_out_and_their_answers_come_back)]),
        row(("5508 REQ-1 a", Should), "Identifiers do not depend on the remote host", "One for all",
            &[name(icmp::req_1a_an_identifier_is_the_same_for_every_host)]),
        row(("5508 REQ-2", Must), "A query lives for 60 s at least; (a) configurable",
            "60 s, or as `[timeouts]` says",
            &[name(icmp::req_2_a_query_lives_for_a_minute_and_that_can_be_configured)]),
        row(("5508 REQ-3", Should), "An error with a wrong ICMP checksum is dropped", "Yes",
            &[name(icmp::req_3_an_error_with_a_wrong_checksum_is_dropped)]),
        row(("5508 REQ-3 a", Should), "And with a wrong checksum of the quoted IP header", "Yes (IPv6 has none)",
            &[name(icmp::req_3a_so_is_one_whose_quoted_header_has_a_wrong_checksum)]),
        row(("5508 REQ-3 b", Must), "Options of the quoted packet are stepped over",
            "And extension headers of IPv6",
            &[name(icmp::req_3b_options_of_the_quoted_packet_are_stepped_over)]),
        row(("5508 REQ-3 c", Should), "The quoted transport checksum is not verified", "It is not",
            &[name(icmp::req_3c_the_checksum_of_the_quoted_transport_is_not_verified)]),
        row(("5508 REQ-3 d", Must), "Padding and ICMP extensions are no part of the quote",
            "They pass as they are (RFC 4884); quotes may end after eight bytes",
            &[name(icmp::req_3d_extensions_pass_as_they_are_and_truncated_quotes_too)]),
        row(("5508 REQ-4", Must), "From outside: about nothing known, dropped",
            "Yes", &[name(icmp::req_4_an_error_from_outside_about_nothing_is_dropped)]),
        row(("5508 REQ-4 a–c", Must), "Else the quote is what was sent, type and code stay, and the destination is the sender",
            "Yes", &[name(icmp::req_4a_to_c_others_arrive_as_if_there_were_no_translation)]),
        row(("5508 REQ-5", Must), "From inside: about nothing known, dropped; else likewise, (c) under our own outside address",
            "Yes",
            &[name(icmp::req_5_an_error_from_inside_leaves_under_our_address),
              name(icmp::req_5_one_about_nothing_goes_nowhere)]),
        row(("5508 REQ-6", Must), "An error about a query neither refreshes nor ends its session", "Yes",
            &[name(icmp::req_6_an_error_about_a_query_neither_keeps_nor_ends_it)]),
        row(("5508 REQ-7", Must), "Errors about hairpinned packets are translated, (a) to whoever sent the quoted packet", "Yes",
            &[name(icmp::req_7_an_error_between_two_containers_is_translated_both_ways)]),
        row(("5508 REQ-8", Should), "No resources for a session: \"administratively prohibited\" to the sender",
            "For ports, flows and shares; and an event",
            &[name(icmp::req_8_who_gets_no_session_is_told_that_it_is_prohibited)]),
        row(("5508 REQ-9", May), "Errors may be suppressed on an interface", "Not offered; they are limited in rate for each port",
            &[]),
        row(("5508 REQ-10 a", Must), "Unreachable, Time Exceeded and Echo are supported", "Yes",
            &[name(icmp::req_10a_unreachable_exceeded_and_echo_are_spoken)]),
        row(("5508 REQ-10 b", May), "Others are", "Parameter Problem and Timestamp pass",
            &[name(icmp::req_10b_parameter_problems_and_timestamps_pass)]),
        row(("5508 REQ-10 c", Should), "Source Quench and Information Request are not supported", "They go nowhere",
            &[name(icmp::req_10c_source_quench_and_information_requests_go_nowhere)]),
        row(("5508 REQ-10 d", Should), "Errors that it sends have the type of service that RFC 1812 4.3.2.5 asks for",
            "Precedence 6; errors of others keep theirs",
            &[name(icmp::req_10d_errors_have_the_precedence_of_network_control)]),
        row(("5508 REQ-10 e", Should), "None is sent about an error, a later fragment, a packet to a group or from nobody (RFC 1812 4.3.2.7)",
            "None is", &[name(icmp::req_10e_there_are_packets_that_no_error_is_sent_about)]),
        row(("5508 REQ-10 f", Should), "They are limited in rate (RFC 1812 4.3.2.8)",
            "100 a second towards each port",
            &[name(icmp::req_10f_errors_are_limited_in_rate)]),
        row(("5508 REQ-11", May), "What is neither query nor error may be dropped", "It is dropped",
            &[name(icmp::req_11_messages_that_are_neither_query_nor_error_go_nowhere)]),
    ]
}

#[rustfmt::skip]
fn rfc7857() -> Vec<Row> {
    vec![
        row(("7857 2", Should), "TCP is tracked by the state machine of RFC 6146", "Yes, and by windows and sequence numbers",
            &[name(updates::sec_2_a_connection_goes_through_the_states_of_rfc_6146)]),
        row(("7857 2.1", Should), "Opening and closing have times of their own, four minutes by default", "Yes",
            &[name(updates::sec_2_1_opening_and_closing_have_times_of_their_own)]),
        row(("7857 2.2", Must), "A reset is translated; its state lingers for four minutes",
            "And a packet of the side that is said to have reset revives it; a blind reset is dropped",
            &[name(updates::sec_2_2_a_reset_is_translated_and_its_connection_lingers_for_four_minutes),
              name(updates::sec_2_2_a_blind_reset_or_segment_changes_nothing)]),
        row(("7857 3", May), "Ports overlap for different destinations",
            "With `--mapping address-and-port-dependent`",
            &[name(updates::sec_3_ports_overlap_where_that_was_chosen)]),
        row(("7857 4", Should), "What happens when the paired address is exhausted is defined",
            "The flow is refused; the pairing is kept",
            &[name(updates::sec_4_a_container_stays_with_its_address_when_that_has_no_ports_left)]),
        row(("7857 5", Should), "Mappings are kept per protocol", "Yes", &[name(updates::sec_5_a_mapping_is_one_protocol_s)]),
        row(("7857 6", Should), "Filters are kept per protocol", "Yes", &[name(updates::sec_6_so_is_what_it_lets_in)]),
        row(("7857 7", Should), "With endpoint-independent filtering, inbound refresh is configurable",
            "`--outbound-refresh-only`",
            &[name(updates::sec_7_whether_strangers_keep_a_mapping_alive_is_configurable)]),
        row(("7857 7.1", Should), "Errors and resets sent in answer to inbound packets do not refresh", "They do not",
            &[name(updates::sec_7_1_errors_and_resets_sent_in_answer_do_not_keep_it_alive)]),
        row(("7857 8", May), "Parity may be given up", "It is kept",
            &[name(updates::sec_8_parity_is_kept_for_mappings_that_come_by_themselves_too)]),
        row(("7857 9", Should), "Ports are hard to guess (RFC 6056)",
            "Kept as the container's kernel chose it, else random",
            &[name(updates::sec_9_a_port_that_cannot_be_kept_is_a_random_one)]),
        row(("7857 10", Should), "Identifications of IPv4 datagrams are unique behind one address (RFC 6864)",
            "Datagrams without DF are numbered anew, a train of fragments with one number",
            &[name(updates::sec_10_datagrams_of_two_containers_never_have_one_identification)]),
        row(("7857 11", May), "An identifier may be given up with its last query",
            "Three minutes later, so that nobody else receives a late answer",
            &[name(updates::sec_11_an_identifier_lingers_when_its_last_query_is_over_and_then_ends)]),
        row(("7857 12", Must), "Hairpinning of queries", "Yes",
            &[name(updates::sec_12_a_ping_between_two_containers_by_their_outside_address_passes)]),
    ]
}
