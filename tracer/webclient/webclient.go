// Package webclient is what the tracer's HTTP clients have in common: what they send,
// credentials above all, is for the server that was named and for nobody else.
package webclient

import (
	"crypto/tls"
	"fmt"
	"net/http"

	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// maxHost bounds the name of a host that a server redirects to (RFC 1035, section 2.3.4,
// and a port).
const maxHost = 264

// New returns a client that follows no redirects, as [NoRedirect] says. config may be
// nil.
func New(config *tls.Config) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	return &http.Client{Transport: t, CheckRedirect: NoRedirect}
}

// NoRedirect is a CheckRedirect by which a redirect is the answer. Go's client would
// send all headers but a few that it knows on to whatever host the server names, a
// tenant or a token in a header of its own among them.
func NoRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Redirect says where an answer leads to, for an error; "" if it is no redirect.
func Redirect(resp *http.Response) string {
	if resp.StatusCode/100 != 3 {
		return ""
	}
	to, err := resp.Location()
	if err != nil {
		return "it leads elsewhere, which is not followed"
	}
	// No more of it: path and query may hold secrets.
	return fmt.Sprintf("it leads to %s://%s, which is not followed: name that address if it is meant",
		oneline.Shorten(to.Scheme, 16), oneline.Shorten(to.Host, maxHost))
}
