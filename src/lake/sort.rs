//! Sorting rows in bounded memory.
