package lakegate;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** What expected.json says of one client. */
final class Expected {
  static final int ROWS = 10;
  private final JsonObject file;
  private final JsonObject client;

  Expected(String client) throws IOException {
    this.file = JsonParser.parseString(Files.readString(Path.of(Server.required("LAKEGATE_EXPECTED")))).getAsJsonObject();
    this.client = file.getAsJsonObject("clients").getAsJsonObject(client);
  }

  List<String> columns() {
    List<String> names = new ArrayList<>();
    file.getAsJsonArray("columns").forEach(column -> names.add(column.getAsJsonObject().get("name").getAsString()));
    return names;
  }

  /** The type the client has for a column. */
  String type(String column) {
    return client.getAsJsonObject("types").get(column).getAsString();
  }

  /** What the error says that a column gives; nothing where it gives values. */
  Optional<String> error(String column) {
    return Optional.ofNullable(differs(column).get("error")).map(JsonElement::getAsString);
  }

  /** The values of a column. */
  List<String> values(String column) {
    JsonArray values = Optional.ofNullable(differs(column).getAsJsonArray("values")).orElseGet(() -> exact(column));
    List<String> texts = new ArrayList<>();
    values.forEach(value -> texts.add(value.getAsString()));
    while (texts.size() < ROWS) {
      texts.add("null");
    }
    return texts;
  }

  private JsonObject differs(String column) {
    return Optional.ofNullable(client.getAsJsonObject("differs").getAsJsonObject(column)).orElseGet(JsonObject::new);
  }

  private JsonArray exact(String column) {
    for (JsonElement element : file.getAsJsonArray("columns")) {
      if (element.getAsJsonObject().get("name").getAsString().equals(column)) {
        return element.getAsJsonObject().getAsJsonArray("values");
      }
    }
    throw new IllegalArgumentException("expected.json has no column " + column);
  }
}
