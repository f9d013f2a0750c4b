// Command images writes container images of static binaries, without a container
// runtime and without a registry: one OCI archive an image, with a platform for each
// architecture (https://github.com/opencontainers/image-spec, image-layout.md).
//
//	images -o bin/images/dnstrace.tar -name localhost/dnstrace:v1 amd64=bin/amd64/dnstrace arm64=bin/arm64/dnstrace
//
// An image holds the binary, which is its entry point, and the certificates of
// Mozilla's root store, which DNS over TLS and OTLP over HTTPS need. The same
// binaries give the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	out := flags.String("o", "", "archive to write")
	name := flags.String("name", "", "name and tag of the image")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || *name == "" || flags.NArg() == 0 {
		return errors.New("expected -o ARCHIVE -name NAME:TAG and ARCHITECTURE=BINARY pairs")
	}
	index, err := newIndex(flags.Args())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	return writeArchive(*out, *name, index)
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
