//! The canonical form: what exporters add around a network is taken away.
