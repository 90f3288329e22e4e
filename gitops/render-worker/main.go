// The render worker: renders charts, kustomizations and Jsonnet with the libraries that their own tools are made of.
//
// It reads requests from standard input and writes answers to standard output, one at a time. It has no files of its
// own: while it works on a request it asks for the files that it needs, so that the other side knows what was read and
// decides what may be. See frame.go for the format.
//
// Build it with
//
//	cd gitops/render-worker && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o tidegate-render-worker .
//
// and put it beside the tidegate binary, into PATH, or name it by TIDEGATE_RENDER_WORKER.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"sync/atomic"
)

// request is what the other side wants to have rendered. Exactly one of the tools is set.
type request struct {
	Helm      *helmRequest      `json:"helm"`
	Kustomize *kustomizeRequest `json:"kustomize"`
	Jsonnet   *jsonnetRequest   `json:"jsonnet"`
	Resolve   *resolveRequest   `json:"resolve"`
}

// result is what ends a request. The manifests follow as data: a JSON list.
type result struct {
	Op       string   `json:"op"`
	Error    string   `json:"error,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Remote is true when something was read over the network, which the other side cannot see.
	Remote bool `json:"remote,omitempty"`
}

func main() {
	if len(os.Args) > 1 {
		if os.Args[1] == "version" {
			fmt.Println(versions())
			return
		}
		fmt.Fprintf(os.Stderr, "unknown argument %q; expected version or none\n", os.Args[1])
		os.Exit(2)
	}
	out := os.Stdout
	// Whatever a library prints must not get into the answers.
	os.Stdout = os.Stderr
	watchNetwork()
	conn := &connection{in: bufio.NewReaderSize(os.Stdin, 1<<16), out: bufio.NewWriterSize(out, 1<<16)}
	for {
		header, _, err := conn.receive()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "render worker:", err)
			os.Exit(1)
		}
		manifests, end := serve(conn, header)
		if err := conn.send(end, manifests); err != nil {
			fmt.Fprintln(os.Stderr, "render worker:", err)
			os.Exit(1)
		}
	}
}

func serve(conn *connection, header []byte) (data []byte, end result) {
	files := &hostFiles{conn: conn}
	watched.Store(false)
	defer func() { end.Remote = end.Remote || watched.Load() }()
	defer func() {
		if recovered := recover(); recovered != nil {
			fmt.Fprintf(os.Stderr, "render worker: %v\n%s", recovered, debug.Stack())
			data, end = nil, result{Op: "failed", Error: fmt.Sprintf("the renderer panicked: %v", recovered)}
		}
	}()
	var req request
	if err := json.Unmarshal(header, &req); err != nil {
		return nil, result{Op: "failed", Error: "request: " + err.Error()}
	}
	var manifests []json.RawMessage
	var warnings []string
	var err error
	switch {
	case req.Helm != nil:
		manifests, warnings, err = renderHelm(files, req.Helm)
	case req.Kustomize != nil:
		manifests, warnings, err = renderKustomize(files, req.Kustomize)
	case req.Jsonnet != nil:
		manifests, err = renderJsonnet(files, req.Jsonnet)
	case req.Resolve != nil:
		manifests, err = resolve(req.Resolve)
	default:
		err = errors.New("request: none of helm, kustomize, jsonnet and resolve is set")
	}
	if err != nil {
		return nil, result{Op: "failed", Error: err.Error(), Warnings: warnings, Remote: files.remote}
	}
	if manifests == nil {
		manifests = []json.RawMessage{}
	}
	data, err = json.Marshal(manifests)
	if err != nil {
		return nil, result{Op: "failed", Error: err.Error()}
	}
	return data, result{Op: "done", Warnings: warnings, Remote: files.remote}
}

// watched is true when something went over the default transport since the request began.
var watched atomic.Bool

// watchNetwork notes requests of the default transport: Kustomize gets remote resources by it. A transport asks for its
// proxy once for each request.
func watchNetwork() {
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return
	}
	transport.Proxy = func(req *http.Request) (*url.URL, error) {
		watched.Store(true)
		return http.ProxyFromEnvironment(req)
	}
}

// versions names the libraries, which a cache of results has to know.
func versions() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := ""
	for _, module := range info.Deps {
		switch module.Path {
		case "helm.sh/helm/v4", "sigs.k8s.io/kustomize/api", "github.com/google/go-jsonnet":
			text += module.Path + "@" + module.Version + " "
		}
	}
	return text
}
