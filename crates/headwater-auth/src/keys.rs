//! Public keys of issuers, from PEM files or JSON key sets, and what they have signed.
//!
//! Guarantees:
//! * the kind of a key fixes the algorithms that are believed with it; there is no `none`, and no shared secret
//! * a `kid` only chooses among the keys of the set
//! * RSA keys have 2048 to 8192 bits
//!
//! Sources: RFC 7515, 7517, 7518, 8037 and, for what to refuse, 8725.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature as algorithms;
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};
use spki::der::{Decode as _, Reader as _};

use crate::jws::Unverified;

/// Most keys of a set that are looked at.
const KEYS_MAX: usize = 64;
/// Shortest modulus of an RSA key, in bytes.
const RSA_BYTES_MIN: usize = 256;
/// Longest modulus of an RSA key, in bytes.
const RSA_BYTES_MAX: usize = 1024;

/// Why a set of keys cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeysError {
    /// Neither of the two forms.
    #[error("is neither a JSON key set nor public keys in PEM form")]
    Form,
    /// Nothing in it can verify a signature that we believe.
    #[error("has no key for signatures: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519")]
    Empty,
}

/// Why a token was not signed by one of these keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// Not a token.
    #[error("malformed")]
    Malformed,
    /// The set has no key of this name; a newer set may have.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// No key of the set believes in this algorithm, or the signature is of something else or by another key.
    #[error("signature does not hold")]
    Forged,
}

impl SignatureError {
    /// Whether a newer set may have a key with which the signature holds. One by which a token is forged may have been
    /// replaced meanwhile, under its name or without any.
    pub fn may_hold_by_newer_keys(self) -> bool {
        match self {
            Self::Malformed => false,
            Self::UnknownKey | Self::Forged => true,
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if the set says so.
    algorithm: Option<String>,
    material: Material,
}

/// Keys of one issuer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads either form.
    ///
    /// # Errors
    /// Any [`KeysError`]. Single keys of a JSON set that are of no use here are passed over.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let keys = match serde_json::from_str::<Value>(text) {
            Ok(set) => from_json(&set).ok_or(KeysError::Form)?,
            Err(_) => from_pem(text).ok_or(KeysError::Form)?,
        };
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Self(keys)) }
    }

    /// What a token says, if one of the keys signed it. Times and audience are for the caller to check.
    ///
    /// # Errors
    /// Any [`SignatureError`].
    pub fn verify(&self, token: &str) -> Result<Map<String, Value>, SignatureError> {
        let token = Unverified::parse(token).ok_or(SignatureError::Malformed)?;
        let is_named = |key: &&Key| match (&token.key_id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let mut candidates = self.0.iter().filter(is_named).peekable();
        if candidates.peek().is_none() {
            return Err(SignatureError::UnknownKey);
        }
        if candidates.any(|key| key.signed(&token)) {
            token.claims().ok_or(SignatureError::Malformed)
        } else {
            Err(SignatureError::Forged)
        }
    }
}

impl Key {
    fn signed(&self, token: &Unverified<'_>) -> bool {
        let algorithm = token.algorithm.as_str();
        if self.algorithm.as_ref().is_some_and(|only| only != algorithm) {
            return false;
        }
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let holds = |algorithm: &'static dyn algorithms::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                let parameters = match algorithm {
                    "RS256" => &algorithms::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &algorithms::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &algorithms::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &algorithms::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &algorithms::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &algorithms::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }
            Material::P256(point) => algorithm == "ES256" && holds(&algorithms::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => algorithm == "ES384" && holds(&algorithms::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(key) => matches!(algorithm, "EdDSA" | "Ed25519") && holds(&algorithms::ED25519, key),
        }
    }
}

fn from_json(set: &Value) -> Option<Vec<Key>> {
    let keys = set.get("keys")?.as_array()?;
    Some(keys.iter().take(KEYS_MAX).filter_map(key_of_json).collect())
}

fn key_of_json(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa(bytes("n")?, bytes("e")?)?,
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        // Shared secrets above all: whoever can read the set could sign with them.
        _ => return None,
    };
    Some(Key { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), material })
}

fn rsa(modulus: Vec<u8>, exponent: Vec<u8>) -> Option<Material> {
    let stripped = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let (modulus, exponent) = (stripped(modulus), stripped(exponent));
    let fits = (RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&modulus.len()) && !exponent.is_empty();
    fits.then_some(Material::Rsa { modulus, exponent })
}

/// All `PUBLIC KEY` blocks of a text; `None` if there is none or one is malformed.
fn from_pem(text: &str) -> Option<Vec<Key>> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let end = rest[begin..].find(END)? + begin + END.len();
        keys.push(Key { id: None, algorithm: None, material: key_of_pem(&rest[begin..end])? });
        rest = &rest[end..];
    }
    (!keys.is_empty() && keys.len() <= KEYS_MAX).then_some(keys)
}

fn key_of_pem(block: &str) -> Option<Material> {
    const RSA: &str = "1.2.840.113549.1.1.1";
    const EC: &str = "1.2.840.10045.2.1";
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const ED25519: &str = "1.3.101.112";
    let (_, der) = spki::der::pem::decode_vec(block.as_bytes()).ok()?;
    let info = spki::SubjectPublicKeyInfoRef::from_der(&der).ok()?;
    let bytes = info.subject_public_key.as_bytes()?.to_vec();
    match info.algorithm.oid.to_string().as_str() {
        RSA => rsa_of_der(&bytes),
        ED25519 => (bytes.len() == 32).then_some(Material::Ed25519(bytes)),
        EC => match info.algorithm.parameters_oid().ok()?.to_string().as_str() {
            P256 => (bytes.len() == 65).then_some(Material::P256(bytes)),
            P384 => (bytes.len() == 97).then_some(Material::P384(bytes)),
            _ => None,
        },
        _ => None,
    }
}

/// The two numbers of an RSA key. Source: RFC 8017, A.1.1.
fn rsa_of_der(bytes: &[u8]) -> Option<Material> {
    let mut reader = spki::der::SliceReader::new(bytes).ok()?;
    let (modulus, exponent) = reader
        .sequence(|inner| {
            let modulus = spki::der::asn1::UintRef::decode(inner)?.as_bytes().to_vec();
            let exponent = spki::der::asn1::UintRef::decode(inner)?.as_bytes().to_vec();
            Ok::<_, spki::der::Error>((modulus, exponent))
        })
        .ok()?;
    rsa(modulus, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PEM, JSON, and tokens by their algorithms.
    type Signed = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

    /// Public keys in both forms and what they signed, made with another implementation: `{"sub":"u"}` each time.
    const SIGNED: &[Signed] = &[
        (
            "-----BEGIN PUBLIC KEY-----\n\
             MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAon7X93R9X0tkFYjFs4DB\n\
             o65OHtPPVCDcnDWVGC4MXUl6Cwt0BEcPkXlUJU+qx4cbpW6MNgcqaU+PqsYkHARh\n\
             6tjmmoNx+HvhQtYd3yZ8tSDRi2Qmjf9DrMYxma8eIOPznYI1uQj5cALYj88wKd5k\n\
             2UT7DaMm10bSqhBke+HEagjTkXP+ECWk4UpxG5P8zcxibTQnE/aW/fehzbrtQ/6B\n\
             pu1BekWSrAyvsqpamHN5TwdjwGjyd61kzmEyPS5L2YxBNMIRgvn4IpvK4PXLFa+c\n\
             bOyYTLUsF0fq+gHvM918+Ku59M+QEmEM5Lm7+cz8+g3RD9IscuYOpt64CGa7v/4I\n\
             gQIDAQAB\n\
             -----END PUBLIC KEY-----\n",
            r#"{"kty":"RSA","n":"on7X93R9X0tkFYjFs4DBo65OHtPPVCDcnDWVGC4MXUl6Cwt0BEcPkXlUJU-qx4cbpW6MNgcqaU-PqsYkHARh6tjmmoNx-HvhQtYd3yZ8tSDRi2Qmjf9DrMYxma8eIOPznYI1uQj5cALYj88wKd5k2UT7DaMm10bSqhBke-HEagjTkXP-ECWk4UpxG5P8zcxibTQnE_aW_fehzbrtQ_6Bpu1BekWSrAyvsqpamHN5TwdjwGjyd61kzmEyPS5L2YxBNMIRgvn4IpvK4PXLFa-cbOyYTLUsF0fq-gHvM918-Ku59M-QEmEM5Lm7-cz8-g3RD9IscuYOpt64CGa7v_4IgQ","e":"AQAB"}"#,
            &[
                (
                    "RS256",
                    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.N9JbK1yNCmE8w-uRm1r3LCLOAvVU4teZ9ijKeHRF8Ioj9xtYAz5xRDxiQFPZx80xHXxEGbm5adCdGUE5XMOpNiyn2WTRNg5TQSzDCvKoTuRbIUH6alMaXVOnzWJ76X316wUUrc1cmBb5Q_1uojhK4EzJfzoLTUIsi6J1yf0vMsPFHHMwowv2cWAznjs7A1dpmXSYEzApFBD1od-tia1a1xz0l-6VvgKzmfDrRSd9c6G5yB1eoMYyf7aTQFLfiGlLzW-7rRm3ddmZd39800qXx5hTz0k52Cz25vdqxHRPU6nihVDnzGSPhkSD5uimV5l_CWt0hL0651irJ2Vh2DFt6A",
                ),
                (
                    "PS256",
                    "eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJ1In0.LwLmm50EVxLgM-tO6qZC584p3HdDnRVwaDu9jtCMzP1pBpOR9U6HiYs-s6qdi1EgGfx5-UqOxxUdR-yAO3oH_wEhbtylNgPTnQADNTzpaZ3LdmReRYkzjO-uIAZDqIgaJgg_SSfhK7u9qKmGkTUDr5ylwan6Ovsdlfioj7-wQFd8FKPnk28tWgEJW0j6bFvL8s920ioUccobxpt7kcyAbqdXTr134lsHc874_56CqGXLjKzVDPCbvzdmk6Y9CAAXaYl1Ljayg11WkPlLfT-ftwrV8EYw0HnN-a4C-sQ8-df7w7koNKlR8AzN8Wi4NKhsrqZywbjgvcaVcrV_mNNLUQ",
                ),
            ],
        ),
        (
            "-----BEGIN PUBLIC KEY-----\n\
             MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAnNJaBOp1v5Y6BbP5BJwdEYAW1EL\n\
             HdrZa6yha5DfeuyLPICyhYDkdfLRlDkj/+G8wKyNCHoAZGiV1QAiNdXFWg==\n\
             -----END PUBLIC KEY-----\n",
            r#"{"kty":"EC","x":"AnNJaBOp1v5Y6BbP5BJwdEYAW1ELHdrZa6yha5Dfeuw","y":"izyAsoWA5HXy0ZQ5I__hvMCsjQh6AGRoldUAIjXVxVo","crv":"P-256"}"#,
            &[(
                "ES256",
                "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.iLRDrmdDoTKt2HObFucT-YpdzqaF2FJ6rYn5-BeFbm3G3w7UJgwYJUm5Q778pwP7vLK1QgvSAER7z8YRdYC0LA",
            )],
        ),
        (
            "-----BEGIN PUBLIC KEY-----\n\
             MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEJg71+zy1CAmMCNdc+LQ8PbiWGQOde9Ch\n\
             7wHPtsiqCWunCm5diLRVDDglZ0JAfmcddgHV//MBH7NjPz/DMd2WSpML/tkC5dUc\n\
             GcyuFnkafyscJ5ivzOLjVWX8EOi7OCdu\n\
             -----END PUBLIC KEY-----\n",
            r#"{"kty":"EC","x":"Jg71-zy1CAmMCNdc-LQ8PbiWGQOde9Ch7wHPtsiqCWunCm5diLRVDDglZ0JAfmcd","y":"dgHV__MBH7NjPz_DMd2WSpML_tkC5dUcGcyuFnkafyscJ5ivzOLjVWX8EOi7OCdu","crv":"P-384"}"#,
            &[(
                "ES384",
                "eyJhbGciOiJFUzM4NCJ9.eyJzdWIiOiJ1In0.uVMJd9yHimzp3WcMToFfBeoQS7sBPKLN-WPe-I8cBG9VFwGSsph4B77qQEURmlPMZLTyzATU1eJRUN9vUAzGuAQ6a8h_x7sjek7eOyvE94yWK7FwjTRhIHoelZf8uqKI",
            )],
        ),
        (
            "-----BEGIN PUBLIC KEY-----\n\
             MCowBQYDK2VwAyEAjO5nwp4VO9Ytun3X2on2T0EtY2GSmltZr17vDkc/acM=\n\
             -----END PUBLIC KEY-----\n",
            r#"{"crv":"Ed25519","x":"jO5nwp4VO9Ytun3X2on2T0EtY2GSmltZr17vDkc_acM","kty":"OKP"}"#,
            &[(
                "EdDSA",
                "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1In0.TMmnBSvzUuHcDOcB08PrWc86mslSjx-ctdI8eEfG0OqUH_9NZLYHFBa2058JTbjr1R8WM1NvlXK_h4LGTGKaBg",
            )],
        ),
    ];
    /// Of 1024 bits.
    const SMALL: &str = r#"{"kty":"RSA","n":"qDYkaKG3cHj-3FKBVX4ot0MQp-u-llDao8HsrJDaapKfgL3fpMSrxexiYKCwTSahfVTzteayvIjWD_CbLkL42RTBkXNr-kV_LXZ6r8wolBBHr_-x0HuLF6hgjt7ve-nF0X8HbvLU3o5_aulnQKXFcYkWeJxGzeGgeRwIqiwZGgc","e":"AQAB"}"#;

    #[test]
    fn both_forms_of_a_key_verify_what_it_signed_and_nothing_else() {
        for (index, (pem, json, tokens)) in SIGNED.iter().enumerate() {
            let (pem, json) = (KeySet::parse(pem).unwrap(), KeySet::parse(&format!(r#"{{"keys":[{json}]}}"#)).unwrap());
            for (algorithm, token) in *tokens {
                assert_eq!(pem.verify(token).unwrap()["sub"], "u", "{algorithm}");
                assert_eq!(json.verify(token).unwrap()["sub"], "u", "{algorithm}");
                let cut = &token[..token.len() - 8];
                assert!(pem.verify(cut).is_err(), "{algorithm}");
            }
            for (other, (_, _, theirs)) in SIGNED.iter().enumerate() {
                for (algorithm, token) in *theirs {
                    assert_eq!(json.verify(token).is_ok(), other == index, "{algorithm}");
                }
            }
        }
    }

    #[test]
    fn sets_choose_by_name_and_by_the_algorithm_they_say() {
        let (_, json, tokens) = SIGNED[0];
        let with = |more: &str| KeySet::parse(&format!(r#"{{"keys":[{{{more},{}]}}"#, &json[1..]));
        let (rs256, ps256) = (tokens[0].1, tokens[1].1);
        let only = with(r#""kid":"a","alg":"PS256""#).unwrap();
        assert_eq!(only.verify(rs256), Err(SignatureError::Forged));
        assert!(only.verify(ps256).is_ok(), "a token that names no key is tried with each");
        assert_eq!(with(r#""use":"enc""#), Err(KeysError::Empty));
        let named = format!(
            "{}.{}",
            crate::jws::encode(r#"{"alg":"PS256","kid":"b"}"#),
            &ps256[ps256.find('.').unwrap() + 1..]
        );
        assert_eq!(only.verify(&named), Err(SignatureError::UnknownKey));
    }

    #[test]
    fn what_is_no_key_for_signatures_is_refused() {
        let set = |key: &str| KeySet::parse(&format!(r#"{{"keys":[{key}]}}"#));
        for key in [
            SMALL,
            r#"{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#,
            r#"{}"#,
        ] {
            assert_eq!(set(key), Err(KeysError::Empty), "{key}");
        }
        for text in ["", "{}", "[]", "nonsense", "-----BEGIN PUBLIC KEY-----\n", r#"{"keys":1}"#] {
            assert_eq!(KeySet::parse(text), Err(KeysError::Form), "{text}");
        }
        let pem = SIGNED[0].0;
        assert_eq!(KeySet::parse(&pem.replace("PUBLIC", "PRIVATE")), Err(KeysError::Form));
        assert_eq!(KeySet::parse(&pem[..pem.len() / 2]), Err(KeysError::Form));
    }
}
