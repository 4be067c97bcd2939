//! End to end: real TAPs, namespaces and kernels. Runs as root and as any user.

mod support;
mod taps;
