//! ICMP errors and the packets they quote.
