//! Switching inside one layer-2 domain: who may send what ([`guard`]), behind which port a station
//! is ([`fdb`]), and what may go to everybody ([`flood`]).

pub mod fdb;
pub mod flood;
pub mod guard;
