//! Cutting a super-frame into segments.
