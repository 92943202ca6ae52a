use super::*;

#[test]
fn a_network_is_an_address_or_a_64() {
    for (client, expected) in
        [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
    {
        assert_eq!(network(client.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
    }
}
