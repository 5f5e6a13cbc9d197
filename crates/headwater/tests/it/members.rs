//! Membership.

use std::time::Duration;

use headwater_client::{ErrorKind, Member, Membership};

use super::Store;

/// Five times that has to be more than a heartbeat ever takes, on a disk that is busy, too.
const EVERY: Duration = Duration::from_millis(100);

/// Waits until the members are these, with their health.
async fn until(membership: &mut Membership, expected: &[(&str, bool)]) {
    let is_expected = |members: &[Member]| {
        members.iter().map(|member| (member.name.as_str(), member.is_healthy)).eq(expected.iter().copied())
    };
    let wait = async {
        while !is_expected(&membership.members().unwrap()) {
            membership.changed().await.unwrap();
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(outcome.is_ok(), "{:?} in place of {expected:?}", membership.members());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_see_who_comes_who_leaves_and_who_stops() {
    let store = Store::start().await;
    let stream = store.stream("s/members", 1).await;
    let join = |name: &'static str| store.client.join(&stream, name, EVERY);
    let mut one = join("one").await.unwrap();
    assert_eq!(one.members().unwrap(), [Member { name: "one".to_owned(), is_healthy: true }]);
    let two = join("two").await.unwrap();
    let three = join("three").await.unwrap();
    until(&mut one, &[("one", true), ("three", true), ("two", true)]).await;
    two.leave().await.unwrap();
    until(&mut one, &[("one", true), ("three", true)]).await;
    drop(three);
    until(&mut one, &[("one", true), ("three", false)]).await;
    until(&mut one, &[("one", true)]).await;
    let _three = join("three").await.unwrap();
    until(&mut one, &[("one", true), ("three", true)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_stay_through_a_restart_and_end_with_their_stream() {
    let mut store = Store::start().await;
    let stream = store.stream("s/members", 1).await;
    let mut one = store.client.join(&stream, "one", EVERY).await.unwrap();
    let mut two = store.client.join(&stream, "two", EVERY).await.unwrap();
    store.restart().await;
    until(&mut one, &[("one", true), ("two", true)]).await;
    until(&mut two, &[("one", true), ("two", true)]).await;
    store.client.seal_stream(&stream).await.unwrap();
    // The others may be seen to stop before it is seen why.
    let error = loop {
        if let Err(error) = one.changed().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Sealed);
    assert_eq!(one.changed().await.unwrap_err().kind(), ErrorKind::Sealed);
    for bad in ["", &"x".repeat(1025)] {
        let error = store.client.join(&stream, bad, EVERY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let error = store.client.join(&stream, "three", Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
