//! Headwater inside a program: the same store as the server's, without sockets.
//!
//! ```no_run
//! use headwater::Embedded;
//! use headwater::client::{ScopedStream, StreamConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Embedded::open("orders-data").await?;
//! let stream = ScopedStream::parse("shop/orders")?;
//! store.client().create_scope(&stream.scope).await?;
//! store.client().create_stream(&stream, &StreamConfig::fixed(1)).await?;
//! let writer = store.client().event_writer(&stream, Default::default()).await?;
//! let stored = writer.write("customer 7", "one apple").await?.await?;
//! println!("stored in segment {} at {:?}", stored.segment, stored.offset);
//! store.stop().await;
//! # Ok(())
//! # }
//! ```

pub mod embedded;
pub mod testing;

pub use embedded::{Embedded, EmbeddedOptions};
pub use headwater_client as client;
pub use headwater_server::StartError;
