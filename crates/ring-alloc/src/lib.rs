//! 4 KiB-aligned memory for direct I/O: one mapping, cut into equal buffers.
