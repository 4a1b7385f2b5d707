/* check_certificates.h: keys, certificates and revocation lists made on the spot, as PEM files. */
#ifndef SMALLSERVD_CHECK_CERTIFICATES_H
#define SMALLSERVD_CHECK_CERTIFICATES_H

#include <check.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
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

/* What is special about a certificate. */
struct wanted {
	const char *name;
	const struct identity *issuer; /* NULL: signed by itself */
	bool authority;
	const char *purpose;   /* extendedKeyUsage; NULL: none is said */
	long from_s, until_s;  /* from now on; both 0: since an hour ago, for a year */
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

static inline struct identity identity_new(struct wanted wanted)
{
	static long serial;
	struct identity made = {.key = EVP_EC_gen(wanted.key_curve != NULL ? wanted.key_curve : "P-256")};
	made.certificate = X509_new();
	ck_assert_ptr_nonnull(made.key);
	ck_assert_ptr_nonnull(made.certificate);
	const struct identity *issuer = wanted.issuer != NULL ? wanted.issuer : &made;
	X509_NAME *name = X509_get_subject_name(made.certificate);
	bool usual = wanted.from_s == 0 && wanted.until_s == 0;

	X509_set_version(made.certificate, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), ++serial);
	X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Lab", -1, -1, 0);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)wanted.name, -1, -1, 0);
	X509_set_issuer_name(made.certificate, X509_get_subject_name(issuer->certificate));
	X509_gmtime_adj(X509_getm_notBefore(made.certificate), usual ? -HOUR_S : wanted.from_s);
	X509_gmtime_adj(X509_getm_notAfter(made.certificate), usual ? YEAR_S : wanted.until_s);
	X509_set_pubkey(made.certificate, made.key);
	add_extension(made.certificate, issuer->certificate, NID_basic_constraints,
		      wanted.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
	if (wanted.purpose != NULL)
		add_extension(made.certificate, issuer->certificate, NID_ext_key_usage, wanted.purpose);
	ck_assert_int_gt(X509_sign(made.certificate, issuer->key, EVP_sha256()), 0);
	return made;
}

static inline void identity_free(struct identity *identity)
{
	X509_free(identity->certificate);
	EVP_PKEY_free(identity->key);
}

/* --- files, in a directory of the test --- */

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

/* The path of NAME there; it lives until the process ends. */
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

/* PASSPHRASE NULL: not encrypted. */
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

/* A list of AUTHORITY with REVOKED (NULL: nobody), that is valid until UNTIL_S from now. */
static inline const char *write_list(const char *name, const char *mode, const struct identity *authority,
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
