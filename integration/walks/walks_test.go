package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	docsDir = "../../docs"
	readme  = "../../README.md"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// codes returns the findings that the README lists.
func codes(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, m := range regexp.MustCompile("`([a-z]+(-[a-z]+)+)`").FindAllStringSubmatch(read(t, readme), -1) {
		all = append(all, m[1])
	}
	if !slices.Contains(all, "conntrack-race") {
		t.Fatalf("no findings in %s: %v", readme, all)
	}
	return all
}

// Every page's commands print today what the page says they do: the same headings,
// results and findings. `make walks` rewrites the pages: read the difference before
// you commit it.
func TestWalks(t *testing.T) {
	known := codes(t)
	for _, name := range pageNames() {
		t.Run(name, func(t *testing.T) {
			page := read(t, filepath.Join(docsDir, name+".md"))
			now, err := walk(t.Context(), name, page)
			if err != nil {
				t.Fatal(err)
			}
			want, err := sessions(page)
			if err != nil {
				t.Fatal(err)
			}
			got, err := sessions(now)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				for j, command := range want[i].commands {
					was, is := essence(want[i].outputs[j], known), essence(got[i].outputs[j], known)
					if want[i].outputs[j] == "" || was != is {
						t.Errorf("$ %s\nthe page has %s\nnow it is    %s\n%s", command, was, is, got[i].outputs[j])
					}
				}
			}
		})
	}
}

// Every page can be found, and every one with a session has a scene.
func TestEveryPageIsListed(t *testing.T) {
	index := read(t, filepath.Join(docsDir, "README.md"))
	if !strings.Contains(read(t, readme), "(docs/README.md)") {
		t.Error("README.md does not lead to docs/README.md")
	}
	pages, err := filepath.Glob(docsDir + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pages {
		name := strings.TrimSuffix(filepath.Base(path), ".md")
		if name == "README" {
			continue
		}
		if _, ok := scenes[name]; ok != strings.Contains(read(t, path), "\n"+sessionStart+"\n") {
			t.Errorf("%s has a session and no scene, or a scene and no session", path)
		}
		if !strings.Contains(index, "("+name+".md)") {
			t.Errorf("docs/README.md does not list %s", path)
		}
	}
}

const samplePage = "# Title\n\ntext\n\n```console\n$ one -x\nold\n\n$ two\n```\n\n```\n$ not run\n```\n"

func TestFill(t *testing.T) {
	var ran []string
	got, err := fill(samplePage, func(command string) (string, error) {
		ran = append(ran, command)
		return command + " says:\n\nthis\n\n", nil
	})
	want := "# Title\n\ntext\n\n```console\n$ one -x\none -x says:\n\nthis\n$ two\ntwo says:\n\nthis\n```\n\n```\n$ not run\n```\n"
	if err != nil || got != want {
		t.Errorf("%v, got:\n%s", err, got)
	}
	if !slices.Equal(ran, []string{"one -x", "two"}) {
		t.Errorf("ran %q", ran)
	}
	again, err := fill(got, func(command string) (string, error) { return command + " says:\n\nthis\n", nil })
	if err != nil || again != got {
		t.Errorf("not the same the second time: %v\n%s", err, again)
	}
	failed := errors.New("no")
	if _, err := fill(samplePage, func(string) (string, error) { return "", failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	for _, broken := range []string{"```console\n$ a\n", "```console\nno command\n```\n"} {
		if _, err := fill(broken, nil); err == nil {
			t.Errorf("no error for %q", broken)
		}
	}
}

func TestEssence(t *testing.T) {
	known := []string{"upstream-timeout", "nxdomain-storm"}
	a := essence("TIME  CLIENT\n07:32 10.0.0.1 NOERROR upstream-timeout in 3.1 ms\n", known)
	b := essence("TIME  CLIENT\n08:11 10.0.0.9 upstream-timeout NOERROR in 2.9 ms, jar-jar-binks\n", known)
	if a != b || a != "CLIENT NOERROR TIME upstream-timeout" {
		t.Errorf("%q, %q", a, b)
	}
	if c := essence("TIME  CLIENT\n08:11 10.0.0.9 NOERROR", known); c == a {
		t.Errorf("the same without the finding: %q", c)
	}
}
