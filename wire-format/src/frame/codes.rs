//! Numbers with names: the reasons that frames carry.

/// Declares a newtype of numbers with named values, `name()`, and a `Display` that shows the name or the number.
/// A number without a name is kept: a newer peer may know one more.
macro_rules! codes {
    (
        $(#[$meta:meta])*
        $type:ident($repr:ty) {
            $($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub $repr);

        impl $type {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
            /// Every number of this version and its name.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];

            /// The name for logs and reports; `"unnamed"` for a number of another version.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unnamed",
                }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    $($number => f.pad($text),)*
                    other => write!(f, "{other}"),
                }
            }
        }
    };
}

pub(crate) use codes;
