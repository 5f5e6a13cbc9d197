//! Turns a list of commands, each written once with its fields in wire order, into an enum with its codec.
//!
//! `name: Type` must be in the frame; `name: Type = value` came with a later version and has that value when an older
//! peer leaves it out. Encoding always writes every field. Bytes behind the last known field are a newer peer's and
//! are skipped: the frame's length rules.

macro_rules! commands {
    (
        $(#[$about:meta])*
        enum $commands:ident, payload at most $limit:expr;
        $(
            $(#[$command_about:meta])*
            $code:literal => $command:ident $({
                $($(#[$field_about:meta])* $field:ident : $type:ty $(= $absent:expr)?),* $(,)?
            })?
        )*
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "fields that every command has are explained at the top of the crate")]
        pub enum $commands {
            $($(#[$command_about])* $command $({ $($(#[$field_about])* $field: $type),* })?,)*
        }

        impl $commands {
            /// Code and name of every command here, in the order of the declaration.
            pub const CODES: &'static [(i32, &'static str)] = &[$(($code, stringify!($command))),*];

            /// The code in the frame's header.
            pub fn code(&self) -> i32 {
                match self {
                    $(Self::$command { .. } => $code,)*
                }
            }

            /// The command's name, for logs and metrics.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$command { .. } => stringify!($command),)*
                }
            }

            /// Whether one of these commands has this code.
            pub(crate) fn has_code(code: i32) -> bool {
                matches!(code, $($code)|*)
            }

            /// Decodes the payload of a frame with this code.
            #[allow(unused_variables, reason = "a command without fields reads nothing")]
            pub(crate) fn decode(
                code: i32,
                reader: &mut $crate::field::Reader<'_>,
            ) -> Result<Self, $crate::error::WireError> {
                match code {
                    $($code => {
                        Ok(Self::$command {
                            $($($field: $crate::catalogue::field!(reader, $command, $field, $type $(, $absent)?),)*)?
                        })
                    })*
                    _ => Err($crate::error::WireError::UnexpectedCommand { code }),
                }
            }

            /// Decodes exactly one whole frame, whatever came before it. For tools that look at single frames; connections
            /// are read by the machines, which also know what may follow what.
            ///
            /// # Errors
            /// Not one frame, not one of these commands, or malformed.
            pub fn from_frame(frame: &bytes::Bytes) -> Result<Self, $crate::error::WireError> {
                let (code, payload) = $crate::frame::split(frame)?;
                Self::decode(code, &mut $crate::field::Reader::slicing(&payload))
            }

            /// Bytes of the payload, or why the command cannot be encoded.
            fn payload_bytes(&self) -> Result<usize, $crate::error::EncodeError> {
                let bytes = match self {
                    $(Self::$command { $($($field),*)? } => {
                        0 $($(+ $crate::field::Field::encoded_bytes($field)?)*)?
                    })*
                };
                let limit: usize = $limit;
                if bytes > limit {
                    return Err($crate::error::EncodeError::FrameTooLong { bytes, limit });
                }
                Ok(bytes)
            }

            /// Whether the command can be encoded: text, lists and frame within their limits, no empty table key.
            #[allow(dead_code, reason = "not every set of commands is checked ahead of being sent")]
            pub(crate) fn check(&self) -> Result<(), $crate::error::EncodeError> {
                self.payload_bytes().map(drop)
            }

            /// Appends the whole frame, in the newest layout, to `out`.
            ///
            /// # Errors
            /// Text, list or frame above its limit, or an empty table key. Then `out` is untouched.
            pub fn encode(&self, out: &mut impl $crate::FrameSink) -> Result<(), $crate::error::EncodeError> {
                let payload_bytes = self.payload_bytes()?;
                $crate::frame::put_header(self.code(), payload_bytes, out);
                match self {
                    $(Self::$command { $($($field),*)? } => {
                        $($($crate::field::Field::put($field, out);)*)?
                    })*
                }
                Ok(())
            }
        }
    };
}

macro_rules! field {
    ($reader:ident, $command:ident, $field:ident, $type:ty) => {
        $reader.required::<$type>(stringify!($command), stringify!($field))?
    };
    ($reader:ident, $command:ident, $field:ident, $type:ty, $absent:expr) => {
        $reader.optional::<$type>(stringify!($command), stringify!($field), $absent)?
    };
}

pub(crate) use {commands, field};
