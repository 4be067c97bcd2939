//! Layer 5: the pipeline.

pub mod inspect;
