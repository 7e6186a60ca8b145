//! A latch-free ring of log buffers between many writing threads and one file.
