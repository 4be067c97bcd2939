//! Inside endpoints and their outside ports.

/// Names a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MappingId(pub u32);

/// All mappings of one worker.
#[derive(Debug, Default)]
pub struct MappingTable;
