//! Aligned buffers to a file through io_uring or positioned writes, with every error told.
