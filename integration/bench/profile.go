package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profileTime is how long a profile takes: at a hundred samples a second, on a server
// that is busy all the time, a function that takes a hundredth is seen ten times.
const profileTime = 10 * time.Second

// A profile of a server: which one, and what the server needs in its environment.
// One allocation in 4 KiB is noted, since with Go's usual 512 KiB the small ones
// hardly show; that takes its time, so each profile has a server of its own.
var profiles = []struct{ name, path, env string }{
	{"cpu", "profile", ""},
	{"allocs", "allocs", "GODEBUG=memprofilerate=4096"},
}

// profile writes profiles of CoreDNS with dnstrace at a workload.
func (b *bench) profile(w workload) error {
	if err := os.MkdirAll(b.cfg.profile, 0o755); err != nil {
		return err
	}
	for _, p := range profiles {
		path := filepath.Join(b.cfg.profile, w.name+"."+p.name+".pprof")
		asked, err := b.profileOf(w, p.path, p.env, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Printf("%s: %d queries; see it with: go tool pprof -top -focus dnstrace/plugin %s\n", path, asked, path)
	}
	return nil
}

// profileOf writes one profile, and returns how many queries were asked meanwhile.
func (b *bench) profileOf(w workload, kind, env, path string) (asked int, err error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	pprof := fmt.Sprintf("127.0.0.1:%d", port)
	v := b.traced("profile", "", true)
	v.binary = b.cfg.binary
	v.directive += "\n pprof " + pprof
	if env != "" {
		v.env = []string{env}
	}
	s, err := b.start(v)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop(), os.Remove(v.records)) }()
	if _, err := s.ask(w, clients*names); err != nil {
		return 0, err
	}
	before := s.asked
	done := make(chan error, 1)
	go func() {
		done <- download(fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", pprof, kind, int(profileTime.Seconds())), path)
	}()
	for {
		select {
		case err := <-done:
			return s.asked - before, err
		default:
		}
		if _, err := s.ask(w, clients*names); err != nil {
			return 0, err
		}
	}
}

// download writes what is at a URL to a file.
func download(url, path string) (err error) {
	client := http.Client{Timeout: profileTime + scrapePatience}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, resp.Body)
	return err
}
