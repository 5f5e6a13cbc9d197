//! An issuer of tokens. Also in tests beside the code.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

/// A key of an issuer, as it is published and as it signs.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    chance: rand::SystemRandom,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let chance = rand::SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &chance).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &chance).unwrap();
        Self { pair, chance }
    }

    /// Its public half, uncompressed.
    pub(crate) fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// As a JSON key set lists it.
    pub(crate) fn published(&self, id: &str) -> String {
        let point = self.point();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        format!(r#"{{"kty":"EC","crv":"P-256","use":"sig","kid":"{id}","x":"{x}","y":"{y}"}}"#)
    }

    /// What a caller says who has a token of it.
    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&self.chance, signed.as_bytes()).unwrap();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
