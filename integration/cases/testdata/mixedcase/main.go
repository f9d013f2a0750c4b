// Mixedcase is a resolver that asks another one for names in mixed case (0x20), takes an
// answer only in the same case, and asks three times: it then takes any.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/miekg/dns"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: mixedcase LISTEN FORWARD")
		os.Exit(2)
	}
	ended := make(chan error)
	for _, network := range []string{"udp", "tcp"} {
		server := &dns.Server{Addr: os.Args[1], Net: network, Handler: dns.HandlerFunc(resolve)}
		go func() { ended <- server.ListenAndServe() }()
	}
	log.Fatal(<-ended)
}

func resolve(w dns.ResponseWriter, r *dns.Msg) {
	const tries = 3
	name := r.Question[0].Name
	client := &dns.Client{Timeout: 5 * time.Second}
	var answer *dns.Msg
	for range tries {
		query := new(dns.Msg).SetQuestion(mixed(name), r.Question[0].Qtype)
		var err error
		if answer, _, err = client.Exchange(query, os.Args[2]); err != nil {
			log.Fatal(err)
		}
		if answer.Question[0].Name == query.Question[0].Name {
			break
		}
	}
	m := new(dns.Msg).SetRcode(r, answer.Rcode)
	m.Answer = answer.Answer
	if err := w.WriteMsg(m); err != nil {
		log.Fatal(err)
	}
}

// mixed changes the case of every other letter.
func mixed(name string) string {
	upper := false
	return strings.Map(func(c rune) rune {
		if upper = !upper; upper {
			return unicode.ToUpper(c)
		}
		return unicode.ToLower(c)
	}, name)
}
