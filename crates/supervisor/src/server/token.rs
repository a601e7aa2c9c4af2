//! What an epoll token stands for.

use crate::hub::Part;
use crate::log::Stream;

/// Everything the loop waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// Children have ended.
    Children,
    /// Somebody connects.
    Listener,
    /// A control connection.
    Connection(u32),
    /// A hub's stdio or client.
    Hub(u32, Part),
    /// The kernel ran out of memory for the group.
    OutOfMemory,
    /// The receiver of log lines takes more, or has gone.
    Log,
}

/// The token of the receiver of log lines.
pub(crate) const LOG_TOKEN: u64 = 9 << 56;

/// Hubs are numbered with 24 bits.
pub(super) const HUB_MASK: u32 = 0x00ff_ffff;

fn pack(kind: u8, hub: u32, number: u32) -> u64 {
    u64::from(kind) << 56 | u64::from(hub & HUB_MASK) << 32 | u64::from(number)
}

/// The token of a hub's part.
pub(super) fn hub_token(hub: u32, part: Part) -> u64 {
    Token::Hub(hub, part).encode()
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        match self {
            Self::Children => pack(1, 0, 0),
            Self::Listener => pack(2, 0, 0),
            Self::OutOfMemory => pack(3, 0, 0),
            Self::Log => LOG_TOKEN,
            Self::Connection(id) => pack(4, 0, id),
            Self::Hub(hub, Part::Input) => pack(5, hub, 0),
            Self::Hub(hub, Part::Output(Stream::Stdout)) => pack(6, hub, 0),
            Self::Hub(hub, Part::Output(Stream::Stderr)) => pack(7, hub, 0),
            Self::Hub(hub, Part::Client(client)) => pack(8, hub, client),
        }
    }

    pub(super) fn decode(token: u64) -> Option<Self> {
        let [number @ .., _, _, _, _] = token.to_le_bytes();
        let number = u32::from_le_bytes(number);
        let [_, _, _, _, a, b, c, kind] = token.to_le_bytes();
        let hub = u32::from_le_bytes([a, b, c, 0]);
        Some(match kind {
            1 => Self::Children,
            2 => Self::Listener,
            3 => Self::OutOfMemory,
            4 => Self::Connection(number),
            5 => Self::Hub(hub, Part::Input),
            6 => Self::Hub(hub, Part::Output(Stream::Stdout)),
            7 => Self::Hub(hub, Part::Output(Stream::Stderr)),
            8 => Self::Hub(hub, Part::Client(number)),
            9 => Self::Log,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive() {
        for token in [
            Token::Children,
            Token::Listener,
            Token::OutOfMemory,
            Token::Log,
            Token::Connection(u32::MAX),
            Token::Hub(HUB_MASK, Part::Input),
            Token::Hub(7, Part::Output(Stream::Stdout)),
            Token::Hub(8, Part::Output(Stream::Stderr)),
            Token::Hub(1, Part::Client(0x1234_5678)),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(0), None);
    }
}
