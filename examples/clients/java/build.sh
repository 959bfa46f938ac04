#!/bin/sh
# Generates and compiles with Debian's packages alone; with Gradle or Maven their protobuf plugins do the same.
# GOOGLEAPIS is a checkout of googleapis: Debian's jar of it is older than google.rpc.ErrorInfo.
set -eu
cd "$(dirname "$0")"
: "${GOOGLEAPIS:?is not set}"
jars=$(printf '/usr/share/java/%s.jar:' \
  grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub \
  netty-buffer netty-codec netty-codec-http netty-codec-http2 netty-common netty-handler netty-resolver \
  netty-transport netty-transport-native-unix-common \
  protobuf proto-google-common-protos guava gson perfmark-api geronimo-annotation-1.3-spec)

rm -rf gen build
buf generate ../../../protos
buf generate "$GOOGLEAPIS" --path "$GOOGLEAPIS/google/rpc/error_details.proto"
find gen Client.java -name '*.java' | xargs javac --release 17 -d build -cp "$jars"

cat > build/client <<END
#!/bin/sh
exec java -cp "$PWD/build:$jars" Client "\$@"
END
chmod +x build/client
