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
//!
//! A program without asynchronous code has a runtime for the store, and calls that wait
//! ([`client::blocking`](headwater_client::blocking)):
//!
//! ```
//! use headwater::Embedded;
//! use headwater::client::{ReadFrom, ScopedStream, StreamConfig, blocking};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Runtime::new()?;
//! let store = runtime.block_on(Embedded::memory())?;
//! let client = blocking::Client::over(store.client().clone())?;
//! let stream = ScopedStream::parse("shop/orders")?;
//! client.run(client.asynchronous().create_scope(&stream.scope))?;
//! client.run(client.asynchronous().create_stream(&stream, &StreamConfig::fixed(1)))?;
//! let mut writer = client.event_writer(&stream, Default::default())?;
//! writer.write("customer 7", "one apple")?.wait()?;
//! let mut reader = client.stream_reader(&stream, ReadFrom::Head)?;
//! assert_eq!(reader.next()?.expect("it is not sealed").event, "one apple");
//! runtime.block_on(store.stop());
//! # Ok(())
//! # }
//! ```

pub mod embedded;
pub mod testing;

pub use embedded::{Embedded, EmbeddedOptions};
pub use headwater_client as client;
pub use headwater_server::StartError;

/// The examples in the documentation of the client, which are written there once, each against a store of its own.
#[cfg(doctest)]
mod examples {
    macro_rules! run {
        ($($name:ident)*) => {$(
            #[doc = concat!(
                "```\n# #[tokio::main(flavor = \"current_thread\")]\n",
                "# async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {\n",
                "# let store = headwater::Embedded::memory().await?;\n",
                "# let (client, stream) = (store.client(), &headwater_client::ScopedStream::parse(\"shop/orders\")?);\n",
                "# client.create_scope(&stream.scope).await?;\n",
                "# client.create_stream(stream, &headwater_client::StreamConfig::fixed(1)).await?;\n",
                include_str!(concat!("../../headwater-client/src/examples/", stringify!($name), ".rs")),
                "# store.stop().await;\n# Ok(())\n# }\n```"
            )]
            mod $name {}
        )*};
    }

    run! {
        acknowledging_reader byte_writer client event_writer key_value_table reader_group slices state_synchronizer
        stream_reader table transactions
    }
}
