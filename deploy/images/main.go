// Command images writes container images of static binaries, without a container
// runtime and without a registry: one OCI archive an image, with a platform for each
// architecture (https://github.com/opencontainers/image-spec, image-layout.md).
//
//	images -o bin/images/dnstrace.tar -name localhost/dnstrace:v1 -revision COMMIT amd64=bin/amd64/dnstrace arm64=bin/arm64/dnstrace
//
// An image holds the binary, which is its entry point, and the certificates of
// Mozilla's root store, which DNS over TLS and OTLP over HTTPS need. Beside the archive
// it writes what each binary is made of (dnstrace-amd64.spdx.json), which is in the image
// as well, and the image's digest (dnstrace.digest), which it prints. The same binaries
// give the same bytes: times are what SOURCE_DATE_EPOCH says
// (https://reproducible-builds.org/specs/source-date-epoch).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

// repository is where the images come from.
const repository = "https://github.com/dnstrace/dnstrace"

// spec says how an image is to be.
type spec struct {
	name              string // and tag
	version, revision string
	licence           string // of the project's own code in it, an SPDX expression
	created           time.Time
	user              string // UID:GID that the binary runs as; empty: root
	netBindService    bool   // the binary may listen on ports below 1024 whoever runs it
	moduleCache       string
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	out := flags.String("o", "", "archive to write")
	var s spec
	flags.StringVar(&s.name, "name", "", "name and tag of the image")
	flags.StringVar(&s.version, "version", "unknown", "version of the binaries")
	flags.StringVar(&s.revision, "revision", "unknown", "commit that they were built from")
	flags.StringVar(&s.licence, "licence", "Apache-2.0", "licence of the project's own code in it, an SPDX expression")
	flags.StringVar(&s.user, "user", "", "UID:GID that the binary runs as; root without")
	flags.BoolVar(&s.netBindService, "net-bind-service", false, "give the binary the file capability cap_net_bind_service")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || s.name == "" || flags.NArg() == 0 {
		return errors.New("expected -o ARCHIVE -name NAME:TAG and ARCHITECTURE=BINARY pairs")
	}
	var err error
	if s.created, err = sourceDate(os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env GOMODCACHE: %w", err)
	}
	s.moduleCache = strings.TrimSpace(string(cache))
	return s.write(*out, flags.Args(), stdout)
}

// sourceDate reads SOURCE_DATE_EPOCH: seconds since 1970. Without one it is then.
func sourceDate(value string) (time.Time, error) {
	if value == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: expected seconds since 1970, as `git log -1 --format=%%ct` prints", value)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// write writes the archive and what lies beside it.
func (s spec) write(out string, args []string, stdout io.Writer) error {
	index, boms, err := s.newIndex(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := writeArchive(out, s.name, index); err != nil {
		return err
	}
	base := strings.TrimSuffix(out, ".tar")
	for architecture, bom := range boms {
		if err := os.WriteFile(base+"-"+architecture+".spdx.json", bom, 0o644); err != nil {
			return err
		}
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".digest", []byte(digest.String()+"\n"), 0o644); err != nil {
		return err
	}
	name, _, _ := strings.Cut(s.name, ":")
	_, err = fmt.Fprintf(stdout, "%s@%s\n", name, digest)
	return err
}

// platform is one binary of an image.
type platform struct{ architecture, binary string }

func parsePlatform(arg string) (platform, error) {
	architecture, binary, ok := strings.Cut(arg, "=")
	if !ok || architecture == "" || binary == "" {
		return platform{}, fmt.Errorf("%q: expected ARCHITECTURE=BINARY", arg)
	}
	return platform{architecture, binary}, nil
}
