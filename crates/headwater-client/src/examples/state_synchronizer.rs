use bytes::Bytes;
use headwater_client::{Error, ErrorKind, Result, SharedState};

/// A number that several processes add to.
struct Total(u64);

fn number(bytes: &Bytes) -> Result<u64> {
    let bytes = bytes[..].try_into().map_err(|_| Error::new(ErrorKind::Protocol, "a number has eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

impl SharedState for Total {
    type Update = u64;

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn decode(bytes: &Bytes) -> Result<Self> {
        number(bytes).map(Self)
    }

    fn encode_update(more: &u64) -> Bytes {
        Bytes::copy_from_slice(&more.to_be_bytes())
    }

    fn decode_update(bytes: &Bytes) -> Result<u64> {
        number(bytes)
    }

    fn apply(&mut self, more: u64) {
        self.0 += more;
    }
}

let mut total = client.state_synchronizer::<Total>(stream).await?;
total.initialize(Total(0)).await?;
// Asked again, with the state as it is then, when somebody else was faster.
let now = total.update(|total| if total.0 < 10 { vec![3] } else { vec![] }).await?;
assert_eq!(now.0, 3);
