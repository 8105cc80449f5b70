//! Both stores in maps: the reference.
