# certificates.bash: a certificate authority and its certificates, made by openssl(1), as NAME.pem and NAME.key in the
# directory PKI. Requires helpers.bash.
# shellcheck shell=bash

openssl_quietly() {
	openssl "$@" >>"$PKI/openssl.log" 2>&1 || {
		tail -n 20 "$PKI/openssl.log"
		fail "openssl $1 failed"
	}
}

# Makes a key and a certificate request for CN=NAME.
make_request() {
	openssl_quietly req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -subj "/CN=$1" \
		-keyout "$PKI/$1.key" -out "$PKI/$1.csr"
}

# Makes an authority that can sign and revoke.
make_authority() {
	: >"$PKI/$1.db"
	cat >"$PKI/$1.cnf" <<-END
		[ca]
		default_ca = lab
		[lab]
		database = $PKI/$1.db
		new_certs_dir = $PKI
		certificate = $PKI/$1.pem
		private_key = $PKI/$1.key
		rand_serial = yes
		default_md = sha256
		default_days = 30
		default_crl_days = 30
		unique_subject = no
		policy = any
		[any]
		commonName = supplied
		[server]
		basicConstraints = critical, CA:FALSE
		extendedKeyUsage = serverAuth
		subjectAltName = DNS:localhost, IP:127.0.0.1
		[client]
		basicConstraints = critical, CA:FALSE
		extendedKeyUsage = clientAuth
	END
	openssl_quietly req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 30 -subj "/CN=$1" \
		-keyout "$PKI/$1.key" -out "$PKI/$1.pem"
}

# sign AUTHORITY NAME PURPOSE [OPTION...]: makes a key and a certificate for NAME; PURPOSE is server or client.
sign() {
	local authority=$1 name=$2 purpose=$3
	shift 3
	make_request "$name"
	openssl_quietly ca -batch -notext -config "$PKI/$authority.cnf" -extensions "$purpose" \
		-in "$PKI/$name.csr" -out "$PKI/$name.pem" "$@"
}

# Writes the revocation list of AUTHORITY to AUTHORITY.crl.
make_revocation_list() {
	openssl_quietly ca -gencrl -config "$PKI/$1.cnf" -out "$PKI/$1.crl"
}

# Makes an authority, a server, a valid client and clients that must be refused, one for each reason.
make_clients() {
	make_authority authority
	make_authority stranger
	sign authority server server
	sign authority good client
	sign authority expired client -startdate 20200101000000Z -enddate 20200102000000Z
	sign authority young client -startdate 20900101000000Z -enddate 20900102000000Z
	sign authority revoked client
	sign stranger foreign client
	sign authority purpose server
	openssl_quietly req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 30 -subj /CN=alone \
		-keyout "$PKI/alone.key" -out "$PKI/alone.pem"
	openssl_quietly ca -config "$PKI/authority.cnf" -revoke "$PKI/revoked.pem"
	make_revocation_list authority
}
