/* check_certificates.h: generates keys, certificates and revocation lists as PEM files. */
#ifndef SMALLSERVD_CHECK_CERTIFICATES_H
#define SMALLSERVD_CHECK_CERTIFICATES_H

#include <check.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A key and its certificate. */
struct identity {
	EVP_PKEY *key;
	X509 *certificate;
};

enum { HOUR_S = 3600, YEAR_S = 365 * 24 * HOUR_S };

/* The properties of a certificate. */
struct template
{
	const char *name;
	const struct identity *issuer; /* NULL: self-signed */
	bool authority;
	const char *purpose;   /* extendedKeyUsage; NULL: not present */
	long from_s, until_s;  /* relative to now; both 0: from an hour ago until a year from now */
	const char *key_curve; /* NULL: P-256 */
};

static inline void add_extension(X509 *certificate, X509 *issuer, int kind, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
	ck_assert_ptr_nonnull(extension);
	ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static inline struct identity identity_new(struct template template)
{
	static long serial;
	struct identity identity = {.key = EVP_EC_gen(template.key_curve != NULL ? template.key_curve : "P-256")};
	identity.certificate = X509_new();
	ck_assert_ptr_nonnull(identity.key);
	ck_assert_ptr_nonnull(identity.certificate);
	const struct identity *issuer = template.issuer != NULL ? template.issuer : &identity;
	X509_NAME *name = X509_get_subject_name(identity.certificate);
	bool default_times = template.from_s == 0 && template.until_s == 0;

	X509_set_version(identity.certificate, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(identity.certificate), ++serial);
	X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Lab", -1, -1, 0);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)template.name, -1, -1, 0);
	X509_set_issuer_name(identity.certificate, X509_get_subject_name(issuer->certificate));
	X509_gmtime_adj(X509_getm_notBefore(identity.certificate), default_times ? -HOUR_S : template.from_s);
	X509_gmtime_adj(X509_getm_notAfter(identity.certificate), default_times ? YEAR_S : template.until_s);
	X509_set_pubkey(identity.certificate, identity.key);
	add_extension(identity.certificate, issuer->certificate, NID_basic_constraints,
		      template.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
	if (template.purpose != NULL)
		add_extension(identity.certificate, issuer->certificate, NID_ext_key_usage, template.purpose);
	ck_assert_int_gt(X509_sign(identity.certificate, issuer->key, EVP_sha256()), 0);
	return identity;
}

static inline void identity_free(struct identity *identity)
{
	X509_free(identity->certificate);
	EVP_PKEY_free(identity->key);
}

/* --- files in the directory of the test --- */

static char certificate_directory[] = "/tmp/check_certificates.XXXXXX";

static inline void make_directory(void)
{
	ck_assert_ptr_nonnull(mkdtemp(certificate_directory));
}

static inline void remove_directory(void)
{
	char command[sizeof certificate_directory + 16];
	snprintf(command, sizeof command, "rm -rf %s", certificate_directory);
	ck_assert_int_eq(system(command), 0);
}

/* Returns the path of NAME in the directory of the test; valid for the next 63 calls. */
static inline const char *path_of(const char *name)
{
	static char paths[64][128];
	static int next;
	char *path = paths[next++ % 64];
	snprintf(path, sizeof paths[0], "%s/%s", certificate_directory, name);
	return path;
}

static inline FILE *open_new(const char *name, const char *mode)
{
	FILE *file = fopen(path_of(name), mode);
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fchmod(fileno(file), 0600), 0);
	return file;
}

static inline const char *write_text(const char *name, const char *text)
{
	FILE *file = open_new(name, "w");
	ck_assert_int_ge(fputs(text, file), 0);
	ck_assert_int_eq(fclose(file), 0);
	return path_of(name);
}

static inline const char *write_certificate(const char *name, const char *mode, const struct identity *identity)
{
	FILE *file = open_new(name, mode);
	ck_assert_int_eq(PEM_write_X509(file, identity->certificate), 1);
	ck_assert_int_eq(fclose(file), 0);
	return path_of(name);
}

/* Writes the key, encrypted unless PASSPHRASE is NULL. */
static inline const char *write_key(const char *name, const char *mode, const struct identity *identity,
				    const char *passphrase)
{
	FILE *file = open_new(name, mode);
	ck_assert_int_eq(PEM_write_PKCS8PrivateKey(file, identity->key, passphrase != NULL ? EVP_aes_128_cbc() : NULL,
						   passphrase, passphrase != NULL ? (int)strlen(passphrase) : 0, NULL,
						   NULL),
			 1);
	ck_assert_int_eq(fclose(file), 0);
	return path_of(name);
}

/* Writes a revocation list of AUTHORITY with REVOKED (NULL: empty), valid until UNTIL_S from now. */
static inline const char *write_crl(const char *name, const char *mode, const struct identity *authority,
				    const struct identity *revoked, long until_s)
{
	X509_CRL *list = X509_CRL_new();
	ASN1_TIME *from = X509_gmtime_adj(NULL, -2 * HOUR_S), *until = X509_gmtime_adj(NULL, until_s);
	ck_assert_ptr_nonnull(list);
	X509_CRL_set_version(list, 1);
	X509_CRL_set_issuer_name(list, X509_get_subject_name(authority->certificate));
	X509_CRL_set1_lastUpdate(list, from);
	X509_CRL_set1_nextUpdate(list, until);
	if (revoked != NULL) {
		X509_REVOKED *entry = X509_REVOKED_new();
		X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->certificate));
		X509_REVOKED_set_revocationDate(entry, from);
		ck_assert_int_eq(X509_CRL_add0_revoked(list, entry), 1);
	}
	ck_assert_int_gt(X509_CRL_sign(list, authority->key, EVP_sha256()), 0);
	FILE *file = open_new(name, mode);
	ck_assert_int_eq(PEM_write_X509_CRL(file, list), 1);
	ck_assert_int_eq(fclose(file), 0);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
	X509_CRL_free(list);
	return path_of(name);
}

#endif
