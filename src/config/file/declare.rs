//! Macros that declare the keys of a table once. The resolved struct, the reader, the defaults and the list of keys that
//! a reload cannot change follow from the declaration; the schema follows from the reader.

/// Declares a table that a file has once.
///
/// Each line of `keys` is a key of the file and a field of the resolved struct. `required` names the advice for when it is
/// missing; a `dependent` default is filled in later. `at_start`: a reload cannot change it; `at_once`: it can. `read` holds
/// what is not in the resolved struct, and `made` the fields that are made of it.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $config:ident, $section:literal, read as $table:ident {
            made { $( $(#[$made_doc:meta])* $made:ident $(as $made_key:literal)?: $made_type:ty = $make:expr, $made_when:ident; )* }
            read { $( $read:ident: $read_type:ty = $read_kind:ident($($read_how:expr),*); )* }
            keys { $( $(#[$doc:meta])* $key:ident: $type:ty = $kind:ident($($how:expr),*), $when:ident; )* }
        }
    ) => {
        $(#[$meta])*
        pub struct $config {
            $( $(#[$made_doc])* pub $made: $made_type, )*
            $( $(#[$doc])* pub $key: settings!(@type $kind $type), )*
        }

        pub(super) struct $table {
            $( pub(super) $read: settings!(@slot $read_kind $read_type), )*
            $( pub(super) $key: Setting<$type>, )*
        }

        impl $table {
            pub(super) fn read(section: Section<'_>) -> Self {
                let table = Self {
                    $( $read: settings!(@read $read_kind section, stringify!($read), $($read_how),*), )*
                    $( $key: settings!(@read $kind section, stringify!($key), $($how),*), )*
                };
                section.finish();
                table
            }

            pub(super) fn build(self) -> Option<$config> {
                Some($config {
                    $( $made: $make(&self)?, )*
                    $( $key: settings!(@take $kind self.$key)?, )*
                })
            }
        }

        impl $config {
            /// The keys that are set to something else in `other`, and that a reload cannot change.
            pub(crate) fn changed_at_start(&self, other: &Self) -> Vec<&'static str> {
                let keys: Vec<(&'static str, bool)> = vec![
                    $( (concat!($section, ".", settings!(@name $made $($made_key)?)), settings!(@$made_when) && self.$made != other.$made), )*
                    $( (concat!($section, ".", stringify!($key)), settings!(@$when) && self.$key != other.$key), )*
                ];
                keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
            }
        }
    };

    (@slot group $type:ty) => { $type };
    (@slot $kind:ident $type:ty) => { Setting<$type> };

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };

    (@type optional $type:ty) => { Option<$type> };
    (@type $kind:ident $type:ty) => { $type };

    (@read default $section:ident, $key:expr, $parse:expr, $default:expr) => { $section.read($key, $parse).or($default) };
    (@read required $section:ident, $key:expr, $parse:expr, $advice:expr) => { $section.required($key, $advice, $parse) };
    (@read optional $section:ident, $key:expr, $parse:expr) => { $section.read($key, $parse) };
    (@read dependent $section:ident, $key:expr, $parse:expr) => { $section.read($key, $parse) };
    (@read group $section:ident, $key:expr, $read:expr) => { $read(&$section) };
    (@read table $section:ident, $key:expr, $read:expr) => { $read($section.section($key)) };

    (@take optional $setting:expr) => { $setting.optional() };
    (@take $kind:ident $setting:expr) => { $setting.take() };

    (@at_start) => { true };
    (@at_once) => { false };
}

/// Declares keys of which each is kept as it is read.
macro_rules! keys {
    (
        $(#[$meta:meta])*
        $vis:vis struct $table:ident { $( $key:ident: $type:ty = $parse:expr; )* }
    ) => {
        $(#[$meta])*
        $vis struct $table {
            $( $vis $key: Setting<$type>, )*
        }

        impl $table {
            $vis fn read(section: &Section<'_>) -> Self {
                Self { $( $key: section.read(stringify!($key), $parse), )* }
            }
        }
    };
}

/// Declares keys that two tables share, one of which overrides the other. `preset` has settings of presets only.
macro_rules! layer {
    (
        $(#[$meta:meta])*
        pub(super) struct $layer:ident {
            keys { $( $key:ident: $type:ty = $parse:expr; )* }
            preset { $( $(#[$doc:meta])* $preset:ident: $preset_type:ty; )* }
        }
    ) => {
        $(#[$meta])*
        #[derive(Default)]
        pub(super) struct $layer {
            $( pub(super) $key: Setting<$type>, )*
            $( $(#[$doc])* pub(super) $preset: Setting<$preset_type>, )*
        }

        impl $layer {
            pub(super) fn read(section: &Section<'_>) -> Self {
                Self { $( $key: section.read(stringify!($key), $parse), )* $( $preset: Setting::Absent, )* }
            }

            /// The keys of this layer, and those of `below` where they are absent.
            pub(super) fn over(&self, below: &Self) -> Self {
                Self { $( $key: self.$key.over(&below.$key), )* $( $preset: self.$preset.over(&below.$preset), )* }
            }
        }
    };
}

pub(super) use {keys, layer, settings};
