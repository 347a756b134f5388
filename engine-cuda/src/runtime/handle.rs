//! Handles of libraries, which are given back when they are dropped.

/// Types of handles, each with the function that gives one back.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident($kind:ty), $destroy:path;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        struct $name($kind);

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: nobody uses it any more.
                if unsafe { $destroy(self.0) }.is_err() {
                    let engine = $crate::runtime::libraries::NAME;
                    tracing::debug!("{engine}: a handle was not given back: {}", stringify!($kind));
                }
            }
        }
    )*};
}

pub(super) use handles;
