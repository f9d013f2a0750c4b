package source

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Access is the credentials for a Loki. Secrets are never part of the URL, which every user
// of the machine sees among the arguments of a process.
type Access struct {
	User, Password string
	Token          string // bearer token; excludes the former
	Tenant         string // X-Scope-OrgID; empty: none
	TLS            *tls.Config
}

// EnvironmentAccess reads the variables that logcli reads, too: LOKI_USERNAME and
// LOKI_PASSWORD, LOKI_BEARER_TOKEN or LOKI_BEARER_TOKEN_FILE, LOKI_ORG_ID,
// LOKI_CA_CERT_PATH; and LOKI_PASSWORD_FILE. No error holds a secret.
func EnvironmentAccess(getenv func(string) string) (Access, error) {
	a := Access{User: getenv("LOKI_USERNAME"), Tenant: getenv("LOKI_ORG_ID")}
	var err, tokenErr, tlsErr error
	a.Password, err = secret(getenv, "LOKI_PASSWORD")
	a.Token, tokenErr = secret(getenv, "LOKI_BEARER_TOKEN")
	a.TLS, tlsErr = authority(getenv("LOKI_CA_CERT_PATH"))
	if err := errors.Join(err, tokenErr, tlsErr); err != nil {
		return Access{}, err
	}
	if a.Token != "" && (a.User != "" || a.Password != "") {
		return Access{}, errors.New("LOKI_BEARER_TOKEN excludes LOKI_USERNAME and LOKI_PASSWORD: unset one")
	}
	return a, nil
}

// secret reads a variable, or the file that another variable names.
func secret(getenv func(string) string, name string) (string, error) {
	value, path := getenv(name), getenv(name+"_FILE")
	switch {
	case path == "":
		return value, nil
	case value != "":
		return "", fmt.Errorf("%s and %s_FILE exclude each other: unset one", name, name)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", name, err)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}

// authority returns the configuration with the certificates of a file, nil for those of
// the system.
func authority(path string) (*tls.Config, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("LOKI_CA_CERT_PATH: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("LOKI_CA_CERT_PATH: no certificate in %s: expected PEM", path)
	}
	return c, nil
}

// show puts what Loki wants to see into a request.
func (a *Access) show(r *http.Request) {
	if a.Tenant != "" {
		r.Header.Set("X-Scope-OrgID", a.Tenant)
	}
	switch {
	case a.Token != "":
		r.Header.Set("Authorization", "Bearer "+a.Token)
	case a.User != "" || a.Password != "":
		r.SetBasicAuth(a.User, a.Password)
	}
}

// lokiURL parses the address of a Loki. The error does not repeat it: it may hold a password.
func lokiURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("--loki: expected a URL such as http://loki:3100")
	case u.User != nil:
		return nil, errors.New("--loki: user and password do not belong in the URL, which every user of this machine can see: set LOKI_USERNAME, " +
			"and LOKI_PASSWORD or LOKI_PASSWORD_FILE")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("--loki: nothing may follow the path: expected a URL such as http://loki:3100")
	}
	return u, nil
}
