//! The packed state word of one log buffer: reserve, release, seal, flush, reopen.
